"""The expected logits and draws come from a plain implementation of LlamaGen's published GPT."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vltok
from vltok.codes import Codes
from vltok.errors import UserError
from vltok.io.importers.llamagen_gpt import LlamaGenGPT
from vltok.verbs.build import build

from .foreign import llamagen_gpt_state

CONFIG = {"n_head": 4, "block_size": 6 * 6, "downsample_size": 2}
HEADS, SIDE = 4, 6


def turned(x: Tensor) -> Tensor:
    """Rotary embeddings of the published model: complex numbers times turns, of no length at the class's place."""
    width = x.shape[-1]
    speeds = torch.tensor([10000 ** (-2 * i / (width // 2)) for i in range(width // 4)])
    turns = torch.zeros(1 + SIDE * SIDE, width // 2, dtype=torch.complex64)
    for place in range(SIDE * SIDE):
        row, column = divmod(place, SIDE)
        turns[1 + place] = torch.exp(1j * torch.cat([row * speeds, column * speeds]))
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns[None, : x.shape[1], None]).flatten(3)


def logits_of(state: dict[str, Tensor], label: int, ids: list[int]) -> Tensor:
    """The logits after the class and after each code, `[s v]`."""

    def norm(name: str, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[f"{name}.weight"]

    x = torch.cat([state["cls_embedding.embedding_table.weight"][[label]], state["tok_embeddings.weight"][ids]])[None]
    for layer in range(2):
        name = f"layers.{layer}"
        projected = norm(f"{name}.attention_norm", x) @ state[f"{name}.attention.wqkv.weight"].T
        query, key, value = (part.unflatten(2, (HEADS, -1)) for part in projected.chunk(3, dim=2))
        query, key, value = (part.transpose(1, 2) for part in (turned(query), turned(key), value))
        scores = query @ key.mT / query.shape[-1] ** 0.5
        later = torch.ones(scores.shape[-2:]).triu(1).bool()
        attended = (scores.masked_fill(later, -torch.inf).softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + attended @ state[f"{name}.attention.wo.weight"].T
        h = norm(f"{name}.ffn_norm", x)
        gate, up = (h @ state[f"{name}.feed_forward.{each}.weight"].T for each in ("w1", "w3"))
        x = x + (F.silu(gate) * up) @ state[f"{name}.feed_forward.w2.weight"].T
    return (norm("norm", x) @ state["output.weight"].T)[0]


@pytest.fixture
def imported():
    state = llamagen_gpt_state()
    found = LlamaGenGPT().convert(CONFIG, state, None)
    prior = build({**found.config, "class_path": "vltok.priors.sequence.SequencePrior"})
    prior.load_state_dict(found.state)
    return prior.eval(), state


@torch.no_grad()
def test_logits_are_the_published_models(imported) -> None:
    prior, state = imported
    grid = torch.randint(40, (3, SIDE, SIDE))
    codes = Codes.from_code_map(grid, torch.zeros_like(grid), prior.spec)
    found, _ = prior(replace(codes, labels=torch.tensor([2, 0, 1])))
    labelled = zip((2, 0, 1), grid.flatten(1).tolist(), strict=True)
    expected = torch.cat([logits_of(state, label, ids[:-1]) for label, ids in labelled])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_greedy_draws_are_the_published_models(imported, guidance) -> None:
    prior, state = imported
    options = vltok.SamplingConfig(top_k=1, guidance=guidance)
    drawn = prior.sample(torch.tensor([1, 2]), options).to_code_map(prior.spec)
    for label, found in zip((1, 2), drawn, strict=True):
        ids: list[int] = []
        for _ in range(SIDE * SIDE):
            logits = logits_of(state, label, ids)[-1]
            if guidance != 1:
                without = logits_of(state, 3, ids)[-1]
                logits = without + (logits - without) * guidance
            ids.append(int(logits.argmax()))
        assert found.flatten().tolist() == ids


def test_what_is_assumed_is_told_and_what_has_no_counterpart_named() -> None:
    state = llamagen_gpt_state(width=64)
    assert LlamaGenGPT().convert({}, state, None).assumed == (
        "n_head is 1",
        "block_size is 256",
        "downsample_size is 16",
        "num_classes is 3",
    )
    texts = {**state, "cls_embedding.cap_proj.fc1.weight": torch.ones(1)}
    assert LlamaGenGPT().recognises(texts)
    with pytest.raises(UserError, match="conditioned on texts"):
        LlamaGenGPT().convert({}, texts, None)
    with pytest.raises(UserError, match="num_classes is 9, but the checkpoint has 4 embeddings of classes"):
        LlamaGenGPT().convert({"num_classes": 9}, state, None)
    with pytest.raises(UserError, match="block_size is 40, but must be a square"):
        LlamaGenGPT().convert({"block_size": 40}, state, None)
    shared = {**state, "layers.0.attention.wqkv.weight": torch.ones(96, 64)}
    with pytest.raises(UserError, match="heads share keys and values"):
        LlamaGenGPT().convert({}, shared, None)
