"""Every registered part of a tokenizer: forward, backward, and a gradient for every parameter."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from vltok.interfaces import Budget, Decoder, Encoder, Gate, Quantizer, Taught, Tokenizer
from vltok.registry import components, find

RATIOS = {4: 0.3, 8: 0.7}
VQGAN = {"width": 32, "blocks": 1, "channels": 16}

#: For each component that vltok declares, arguments that make a small one.
SMALL = {
    "encoder": {
        "vqgan": {"factors": [4, 8], "multipliers": [1, 1, 1, 2], "attention_factors": [8], **VQGAN},
        "timm": {"backbone": "test_resnet", "factors": [4, 8], "channels": 16},
        "patch": {"factors": [4, 8], "width": 32, "blocks": 1, "channels": 16},
    },
    "gate": {
        "feature": {"channels": 16, "granularities": 2, "layers": 2, "norm_groups": 8},
        "gain": {"channels": 16, "ratios": RATIOS},
        "entropy": {"ratios": RATIOS, "thresholds": [1.5]},
        "random": {"ratios": RATIOS},
        "fixed": {"granularity": 1, "granularities": 2},
    },
    "budget": {"ratio": {"ratios": RATIOS}, "code-length": {"length": 30.0, "factors": [4, 8]}},
    "quantizer": {"vq": {"size": 32, "dimension": 8}, "ema-vq": {"size": 32, "dimension": 8}},
    "decoder": {
        "vqgan": {"factor": 4, "multipliers": [1, 1, 2], "attention_factors": [4], **VQGAN},
        "positional": {"grid": 8},
        "pixel-shuffle": {"factor": 4, "channels": 16, "width": 32, "blocks": 1},
    },
    "tokenizer": {"dq-vae": {}},
}


def names(kind: str) -> list[str]:
    return [component.name for component in components(kind) if component.distribution == "vltok"]


def build(kind: str, name: str) -> nn.Module:
    """A small component. A KeyError here means that a component was registered without small arguments above."""
    arguments = dict(SMALL[kind][name])
    if (kind, name) == ("decoder", "positional"):
        arguments["decoder"] = build("decoder", "pixel-shuffle")
    if kind == "tokenizer":
        parts = {
            "encoder": "patch",
            "gate": "feature",
            "quantizer": "vq",
            "decoder": "pixel-shuffle",
            "budget": "ratio",
        }
        arguments |= {part: build(part, default) for part, default in parts.items()}
    return find(kind, name).load()(**arguments)


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 24) * 2 - 1


def features() -> list[torch.Tensor]:
    return [torch.randn(2, 16, 4, 3), torch.randn(2, 16, 8, 6)]


def of_encoder(encoder: Encoder) -> torch.Tensor:
    maps = encoder(images())
    assert encoder.factors == (8, 4)
    assert [tuple(map_.shape) for map_ in maps] == [(2, encoder.channels, 4, 3), (2, encoder.channels, 8, 6)]
    return sum((map_ * torch.randn_like(map_)).sum() for map_ in maps)


def of_gate(gate: Gate) -> torch.Tensor:
    decision = gate(features(), images())
    assert gate.granularities == 2 and decision.grains.shape == (2, 4, 3)
    if isinstance(gate, Taught):
        lessons = gate.lessons(decision.grains)
        return gate.teach(features(), lessons, torch.rand(lessons.shape))
    return (decision.weights * torch.randn_like(decision.weights)).sum()


def of_budget(budget: Budget) -> torch.Tensor:
    assignment = torch.rand(2, 2, 4, 3, requires_grad=True)
    loss = budget(assignment)
    assert torch.autograd.grad(loss, assignment, retain_graph=True)[0].abs().sum() > 0
    assert budget.factors == (8, 4) and 12 <= budget.expected_length(12) <= 48
    return loss


def of_quantizer(quantizer: Quantizer) -> torch.Tensor:
    vectors = torch.randn(2, quantizer.dimension, 16, 16, requires_grad=True)
    found = quantizer(vectors, torch.rand(2, 1, 16, 16))
    assert found.ids.min() >= 0 and found.ids.max() < quantizer.size
    assert torch.autograd.grad(found.vectors.sum() + found.loss, vectors, retain_graph=True)[0].abs().sum() > 0
    return found.loss


def of_decoder(decoder: Decoder) -> torch.Tensor:
    vectors = torch.randn(2, decoder.channels, 8, 6)
    painted = decoder(vectors)
    assert painted.shape == (2, 3, 32, 24) and decoder.factor == 4
    assert torch.autograd.grad(painted.sum(), decoder.last_layer, retain_graph=True)[0].abs().sum() > 0
    return (painted * torch.randn_like(painted)).sum()


def of_tokenizer(tokenizer: Tokenizer) -> torch.Tensor:
    output = tokenizer(images())
    output.codes.validate(tokenizer.spec)
    assert output.reconstruction.shape == (2, 3, 32, 24)
    return (output.reconstruction - images()).abs().mean() + sum(output.losses.values())


RUN: dict[str, Callable] = {
    "encoder": of_encoder,
    "gate": of_gate,
    "budget": of_budget,
    "quantizer": of_quantizer,
    "decoder": of_decoder,
    "tokenizer": of_tokenizer,
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in RUN for name in names(kind)])
def test_every_parameter_gets_a_gradient(kind, name) -> None:
    component = build(kind, name)
    for parameter in component.parameters():
        if not parameter.any():  # a backbone may start its residual branches at zero
            nn.init.normal_(parameter, std=0.1)
    assert isinstance(component, {"gate": Gate, "tokenizer": Tokenizer}.get(kind, nn.Module))
    total = RUN[kind](component)
    assert total.isfinite()
    if total.requires_grad:
        total.backward()
    for name, parameter in component.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", RUN)
def test_small_arguments_are_for_what_is_registered(kind) -> None:
    assert set(SMALL[kind]) == set(names(kind))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in RUN for name in names(kind)])
def test_a_components_state_rebuilds_it(kind, name) -> None:
    component, fresh = build(kind, name), build(kind, name)
    fresh.load_state_dict(component.state_dict(), strict=True)
    for key, value in component.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key
