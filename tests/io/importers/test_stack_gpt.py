import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vltok
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.io.importers.stack_gpt import StackGPT, prior_arguments, prior_state
from vltok.nn.attention import Packing
from vltok.priors.dq_steps import CoarseToFineState, CoarseToFineSteps
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.orderings import Sequences
from vltok.priors.stepwise import StepwiseDrawing

MODELS = ("stackgpt_uncond", "stackgpt_class")
PADDING_TABLES = ("content_emb", "content_coarse_pos_emb", "content_fine_pos_emb")


def original(tensors: dict, config: dict) -> tuple[DQTransformer, dict]:
    """The fixture's model in vltok's words, and its state dict as the original has it."""
    state = {name.removeprefix("sd."): value for name, value in tensors.items() if name.startswith("sd.")}
    prior = vltok.build({"class_path": "dq-transformer", "init_args": arguments(config)})
    prior.load_state_dict(prior_state(state, prior.ordering.longest))
    return prior.eval(), state


def arguments(config: dict) -> dict:
    return prior_arguments(config["transformer"], config["permuter"], 16, config["cond"].get("n_classes"))


def rows(tensors: dict) -> Sequences:
    """The fixture's padded rows, as they are: ⟨pad⟩ is a token like any other."""

    def both(track: str) -> torch.Tensor:
        return torch.cat([tensors[f"in.coarse_{track}"], tensors[f"in.fine_{track}"]], dim=1)

    contents = both("content")
    return Sequences(
        contents.flatten(),
        both("position").flatten(),
        both("seg").flatten(),
        Packing(torch.full((contents.shape[0],), contents.shape[1])),
    )


def losses(prior: DQTransformer, tensors: dict, config: dict) -> tuple[torch.Tensor, ...]:
    """The original's losses: means over what is no ⟨pad⟩."""
    predictions = prior(rows(tensors))
    targets, pads = predictions.targets, config["permuter"]
    content = F.cross_entropy(predictions.contents, targets.contents, ignore_index=pads["content_pad_code"])
    coarse = targets.granularities == 0
    positions = [
        F.cross_entropy(predictions.positions[chosen], targets.positions[chosen], ignore_index=pads[f"{name}_pad_code"])
        for name, chosen in (("coarse_position", coarse), ("fine_position", ~coarse))
    ]
    return content, *positions


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_the_originals(name, parity):
    tensors, config = parity(name)
    prior, _ = original(tensors, config)
    predictions = prior(rows(tensors))
    for ours, theirs in ((predictions.positions, "position"), (predictions.contents, "content")):
        torch.testing.assert_close(ours, tensors[f"out.{theirs}_logits"].flatten(0, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_equal_the_originals(name, parity):
    tensors, config = parity(name)
    prior, state = original(tensors, config)
    content, coarse, fine = losses(prior, tensors, config)
    for ours, theirs in ((content, "content"), (coarse, "coarse_position"), (fine, "fine_position")):
        torch.testing.assert_close(ours, tensors[f"out.{theirs}_loss"], rtol=1e-4, atol=1e-4)
    (content + (coarse + fine) / 2).backward()
    # The importer is linear in the tensors, so it renames gradients as it renames weights.
    theirs = {key: torch.full_like(value, torch.nan) for key, value in state.items()}
    for key in theirs:
        if f"grad.{key}" in tensors:
            theirs[key] = tensors[f"grad.{key}"].clone()
            # their padding rows get no gradient
            if key.removesuffix(".weight") in PADDING_TABLES:
                pad = {"content_emb": "content", "content_coarse_pos_emb": "coarse_position"}
                track = pad.get(key.removesuffix(".weight"), "fine_position")
                theirs[key][config["permuter"][f"{track}_pad_code"]] = torch.nan
    expected = prior_state(theirs, prior.ordering.longest)
    compared = 0
    for key, parameter in prior.named_parameters():
        known = ~expected[key].isnan()
        torch.testing.assert_close(parameter.grad[known], expected[key][known], rtol=1e-3, atol=1e-4)
        compared += int(known.any())
    assert compared >= 10


@pytest.mark.parametrize("name", MODELS)
def test_every_gradient_norm_equals_the_originals(name, parity):
    tensors, config = parity(name)
    prior, _ = original(tensors, config)
    content, coarse, fine = losses(prior, tensors, config)
    (content + (coarse + fine) / 2).backward()
    ours = dict(zip(config["grad_norm_names"], tensors["grad_norms"], strict=True))
    for stack in ("position_transformer", "content_transformer"):
        for layer, block in enumerate(getattr(prior, stack).blocks):
            projected = torch.stack([ours[f"{stack}.{layer}.attn.{part}.weight"] for part in ("query", "key", "value")])
            torch.testing.assert_close(block.query_key_value.weight.grad.norm(), projected.norm(), rtol=1e-3, atol=1e-4)
            for theirs, module in (("mlp.0", block.feedforward_in), ("attn.proj", block.attention_out)):
                expected = ours[f"{stack}.{layer}.{theirs}.weight"]
                torch.testing.assert_close(module.weight.grad.norm(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("positions", ("sampled", "implied"))
def test_greedy_draws_equal_the_originals(name, positions, parity, monkeypatch):
    tensors, config = parity(name)
    prior, _ = original(tensors, config)
    sampling = SamplingConfig(top_k=1, position_top_k=1, positions=positions)
    kind = {"implied": "fixed", "sampled": "free"}[positions]
    expected = [key for key in config["greedy"] if key.startswith(f"greedy_clean_{kind}.")]
    labels = tensors["in.label"] if "in.label" in tensors else len(expected)
    trace: list[tuple[int, int, int, int]] = []

    def observe(numbers: Tensor, state: CoarseToFineState) -> None:
        columns = (numbers, state.granularity, state.position, state.content)
        trace.extend(zip(*(column.tolist() for column in columns), strict=True))

    steps = CoarseToFineSteps(prior, sampling)
    monkeypatch.setattr(prior, "drawing", lambda _: StepwiseDrawing(steps, observe))
    prior.sample(labels, sampling, torch.Generator())
    assert expected
    for row, key in enumerate(expected):
        for granularity, part in enumerate(("coarse", "fine")):
            drawn = [tokens[2:] for tokens in trace if tokens[:2] == (row, granularity)]
            tracks = (tensors[f"{key}.{part}_{track}"][0].tolist() for track in ("position", "content"))
            theirs = list(zip(*tracks, strict=True))
            if part == "fine":
                # theirs has no ⟨sos⟩, and its ⟨eos⟩ may come early, which would leave places without a code
                drawn, theirs = drawn[1:], theirs[:-1]
            assert drawn[: len(theirs)] == theirs


def test_published_configurations_convert(parity):
    parity("stackgpt_uncond")
    keys = json.loads((Path(__file__).parents[4] / "shared" / "parity" / "official_keys.json").read_text())
    for name, classes in (("dqtransformer_uncond_imagenet_p6c18", None), ("dqtransformer_class_imagenet_p6c18", 1000)):
        with torch.device("meta"):
            state = {key: torch.empty(shape) for key, shape in keys[name]["keys"].items()}
            imported = StackGPT().convert(keys[name]["config"], state, Path())
            prior = vltok.build(imported.config)
            prior.load_state_dict(imported.state, assign=True)
        assert prior.spec.factors == (16, 8)
        assert prior.classes == classes


def test_missing_and_unknown_tensors_are_named():
    with pytest.raises(UserError, match="content_coarse_pos_emb"):
        prior_state({}, 10)
    prior_names = {"content_coarse_pos_emb.weight": torch.zeros(1, 1), "content_fine_pos_emb.weight": torch.zeros(1, 1)}
    others = ("content_emb.weight", "seg_emb.weight", "pos_emb")
    heads = [f"{track}_head.{part}" for track in ("position", "content") for part in ("0.weight", "0.bias", "1.weight")]
    state = {**prior_names, **{name: torch.zeros(1, 1) for name in (*others, *heads)}}
    with pytest.raises(UserError, match=r"strange\.weight"):
        prior_state({**state, "strange.weight": torch.zeros(1)}, 10)
