"""The expected logits come from a plain implementation of minGPT, as taming-transformers uses it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.interfaces import Prior
from vltok.io.importers.net2net import Net2Net
from vltok.io.recipes import instantiate, parse_tree, recipe_parser

from .foreign import minigpt


def built(imported) -> Prior:
    parser = recipe_parser("import")
    parser.add_subclass_arguments(Prior, "prior", required=True)
    prior = instantiate(parser, parse_tree(parser, {"prior": imported.config})).prior
    prior.load_state_dict(imported.state)
    return prior.eval()


def logits_of(state: dict[str, Tensor], tokens: Tensor, heads: int, layers: int) -> Tensor:
    """A minGPT's logits after each token `[b s v]`."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"transformer.{name}.weight"], state.get(f"transformer.{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"transformer.{name}.weight"], state[f"transformer.{name}.bias"])

    x = state["transformer.tok_emb.weight"][tokens] + state["transformer.pos_emb"][:, : tokens.shape[1]]
    for layer in range(layers):
        normed = norm(f"blocks.{layer}.ln1", x)
        parts = [linear(f"blocks.{layer}.attn.{each}", normed) for each in ("query", "key", "value")]
        query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        hidden = torch.ones(scores.shape[-2:]).tril() == 0
        attended = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value
        x = x + linear(f"blocks.{layer}.attn.proj", attended.transpose(1, 2).flatten(2))
        inner = F.gelu(linear(f"blocks.{layer}.mlp.0", norm(f"blocks.{layer}.ln2", x)))
        x = x + linear(f"blocks.{layer}.mlp.2", inner)
    return linear("head", norm("ln_f", x))


@pytest.fixture
def first_stage(parity) -> tuple[dict, dict]:
    tensors, config = parity("vqgan")
    return {key[3:]: value for key, value in tensors.items() if key.startswith("sd.")}, config


@pytest.mark.parametrize("classes", [None, 5])
def test_logits_are_the_published_models(first_stage, tmp_path, classes) -> None:
    config, state = minigpt(*first_stage, classes=classes)
    imported = Net2Net().convert(config, state, tmp_path)
    prior = built(imported)
    side = prior.spec.regions[0]
    labels = torch.tensor([3, 0]) if classes else None
    grid = torch.randint(prior.spec.codebook_size, (2, side, side))
    codes = Codes.from_code_map(grid, torch.zeros_like(grid), prior.spec)
    codes = replace(codes, labels=labels)
    # the original starts with the code whose number is the class's
    tokens = torch.cat([torch.zeros(2, 1, dtype=torch.long) if labels is None else labels[:, None], grid.flatten(1)], 1)
    expected = logits_of(state, tokens[:, :-1], heads=4, layers=2)
    with torch.no_grad():
        found, _ = prior(codes)
    torch.testing.assert_close(found, expected.flatten(0, 1), rtol=1e-4, atol=1e-4)
    assert imported.tokenizer is not None and imported.tokenizer().kind == "tokenizer"


def test_without_a_configuration_what_is_assumed_is_told(first_stage, tmp_path) -> None:
    _, state = minigpt(*first_stage, classes=None, steps=300, width=32)
    imported = Net2Net().convert({}, state, tmp_path)
    assert imported.assumed == (
        "pictures have 17 × 17 codes, the largest square of the 300 steps",
        "the model has no classes: give the configuration (--config) if it has",
        "n_head is 16",
    )
    built(imported)


def test_what_has_no_counterpart_is_named(first_stage, tmp_path) -> None:
    config, state = minigpt(*first_stage, classes=None)
    with pytest.raises(UserError, match="conditioned on the codes of another picture"):
        Net2Net().convert(config, {**state, "cond_stage_model.encoder.conv_in.weight": torch.ones(1)}, tmp_path)
    with pytest.raises(UserError, match="no first_stage_model"):
        Net2Net().convert(config, {k: v for k, v in state.items() if k.startswith("transformer.")}, tmp_path)
    with pytest.raises(UserError, match=r"such as strange\.weight"):
        Net2Net().convert(config, {**state, "transformer.strange.weight": torch.ones(1)}, tmp_path)
