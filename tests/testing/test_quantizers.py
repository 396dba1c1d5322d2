"""Every registered quantizer holds the contract, and the contract finds what is broken."""

import pytest
import torch
from torch import Tensor, nn

from vltok.interfaces import Quantized, Quantizer
from vltok.registry import components
from vltok.testing import QuantizerContract
from vltok.tokenizers.quantizers import (
    CosineVectorQuantizer,
    EMAVectorQuantizer,
    GumbelQuantizer,
    VectorQuantizer,
)
from vltok.tokenizers.residual_quantizer import ResidualQuantizer

from .broken import assert_found


class TestVectorQuantizer(QuantizerContract):
    def build(self):
        return VectorQuantizer(size=32, dimension=6)


class TestEMAVectorQuantizer(QuantizerContract):
    def build(self):
        return EMAVectorQuantizer(size=32, dimension=6)


class TestEMAVectorQuantizerWithoutRestart(QuantizerContract):
    def build(self):
        return EMAVectorQuantizer(size=32, dimension=6, restart=False)


class TestCosineVectorQuantizer(QuantizerContract):
    def build(self):
        return CosineVectorQuantizer(size=32, dimension=6)


class TestGumbelQuantizer(QuantizerContract):
    def build(self):
        return GumbelQuantizer(size=32, dimension=6)


class TestResidualQuantizer(QuantizerContract):
    def build(self):
        return ResidualQuantizer(VectorQuantizer(size=16, dimension=6), codebooks=3)


class TestAQuantizerOfOneCode(QuantizerContract):
    def build(self):
        return VectorQuantizer(size=1, dimension=1)


class Signs(Quantizer):
    """The signs of a vector's components, scaled: lookup-free quantization.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.scale = nn.Parameter(torch.rand(()) + 0.5)
        self.calls = 0
        self.register_buffer("usage", torch.zeros(8), persistent=fault != "forgetful")

    @property
    def size(self) -> int:
        return 7 if self.fault == "too_many" else 8

    @property
    def dimension(self) -> int:
        return 3

    def forward(self, vectors: Tensor, weights: Tensor | None = None) -> Quantized:
        self.calls += 1
        if self.fault == "mixing":
            vectors = vectors - vectors.mean((0, 2, 3), keepdim=True)
        bits = (vectors.detach() > 0).long()
        ids = bits[:, 0] + 2 * bits[:, 1] + 4 * bits[:, 2]
        if self.fault == "constant":
            ids = torch.zeros_like(ids)
        if self.fault == "looking" and ids.max() > 7:
            raise ValueError("no such code")
        if self.fault == "at_home":
            ids = ids + torch.zeros(ids.shape, dtype=torch.long)
        if self.fault == "doubled":
            vectors = vectors.double().float()
        if self.training or self.fault == "counting":
            self.usage += nn.functional.one_hot(ids.flatten(), 8).sum(0)
        found = self.lookup(ids)
        squares = (found - vectors).square().mean(1, keepdim=True)
        weights = torch.ones_like(squares) if weights is None or self.fault == "unweighted" else weights
        loss = (squares * weights).sum() / weights.sum()
        if self.fault == "forgetful":
            loss = loss + self.usage.sum()
        if self.fault == "wandering":
            loss = loss + self.calls
        passed = found if self.fault == "cut" else vectors + (found - vectors).detach()
        if self.fault == "opposed":
            passed = (found + vectors).detach() - vectors
        if self.fault == "idle":
            loss = loss.detach()
        return Quantized(ids, passed * 2 if self.fault == "scaled" else passed, loss)

    def lookup(self, ids: Tensor) -> Tensor:
        bits = torch.stack([ids & 1, (ids >> 1) & 1, (ids >> 2) & 1], dim=1)
        if self.fault == "placed":
            bits = bits + torch.arange(ids.shape[2])
        return (2 * bits - 1) * self.scale


class TestSigns(QuantizerContract):
    def build(self):
        return Signs()


def test_every_registered_quantizer_is_held_to_the_contract():
    registered = {component.load() for component in components("quantizer") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in QuantizerContract.__subclasses__()}
    assert held - {Signs} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("too_many", "test_each_vector_gets_a_code"),
        ("scaled", "test_vectors_are_those_of_the_codes"),
        ("placed", "test_every_code_has_a_vector"),
        ("constant", "test_different_vectors_get_different_codes"),
        ("mixing", "test_vectors_do_not_meet_in_evaluation"),
        ("cut", "test_the_gradient_passes_straight"),
        ("opposed", "test_the_gradient_passes_straight"),
        ("unweighted", "test_a_code_counts_by_its_weight"),
        ("idle", "test_every_parameter_gets_a_gradient"),
        ("counting", "test_evaluation_gives_the_same_again_and_changes_nothing"),
        ("wandering", "test_evaluation_gives_the_same_again_and_changes_nothing"),
        ("forgetful", "test_its_state_rebuilds_it"),
        ("looking", "test_it_answers_the_same_on_another_device"),
        ("looking", "test_training_on_another_device_waits_for_nothing"),
        ("at_home", "test_it_answers_the_same_on_another_device"),
        ("doubled", "test_training_on_another_device_waits_for_nothing"),
    ],
)
def test_the_contract_finds_a_quantizer_that_is(fault, test):
    assert_found(TestSigns, test, lambda: Signs(fault))
