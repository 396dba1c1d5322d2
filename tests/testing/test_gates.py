"""Every registered gate holds the contract, and the contract finds what is broken."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltok.codes import Ratios
from vltok.interfaces import Calibrated, Gate, GateDecision
from vltok.registry import components
from vltok.testing import GateContract
from vltok.tokenizers.gain_gate import GainGate
from vltok.tokenizers.gates import EntropyGate, FeatureGate, FixedGate, RandomGate
from vltok.tokenizers.surprise_gate import SurpriseGate

from .broken import assert_found

THIRDS = {4: 0.2, 8: 0.3, 16: 0.5}


class TestFeatureGate(GateContract):
    def build(self):
        return FeatureGate(16, 2, norm_groups=8)


class TestFeatureGateThatMixesAndAnneals(GateContract):
    def build(self):
        return FeatureGate(16, 3, 2, 8, estimator="mixture", final_temperature=0.5, anneal_steps=10)


class TestFeatureGateWithoutNorm(GateContract):
    channels = 6

    def build(self):
        return FeatureGate(6, 2, norm_groups=None)


class TestGainGate(GateContract):
    def build(self):
        return GainGate(16, {4: 0.3, 8: 0.7})


class TestGainGateOfThreeGranularities(GateContract):
    def build(self):
        return GainGate(16, THIRDS)


class TestSurpriseGate(GateContract):
    def build(self):
        return SurpriseGate(16, 12, THIRDS)


class TestEntropyGate(GateContract):
    def build(self):
        return EntropyGate(THIRDS)


class TestRandomGate(GateContract):
    def build(self):
        return RandomGate(THIRDS)


class TestFixedGate(GateContract):
    def build(self):
        return FixedGate(1, 3)


class Bright(Gate, Calibrated):
    """Bright regions are fine, and so are those that a learned score finds.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("threshold", torch.tensor(torch.nan), persistent=fault != "forgetful")

    @property
    def granularities(self) -> int:
        return 2

    @property
    def ratios(self) -> Ratios | None:
        if self.fault == "three":
            return Ratios.of(THIRDS)
        return Ratios.of({4: 0.2, 8: 0.8}) if self.fault == "wasteful" else None

    @property
    def calibrated(self) -> bool:
        return not bool(self.threshold.isnan())

    def calibrate(self, batches) -> None:
        self.threshold.fill_(torch.cat([F.avg_pool2d(images, 8).mean(1).flatten() for images in batches]).median())

    def forward(self, features, images: Tensor) -> GateDecision:
        brightness = F.avg_pool2d(images, images.shape[2] // features[0].shape[2]).mean(1)
        if self.fault == "mixing":
            brightness = brightness - brightness.mean() + self.threshold
        if self.fault == "noisy":
            brightness = brightness + torch.randn_like(brightness)
        fine = (self.scale * (brightness - self.threshold)).sigmoid()
        scores = torch.stack([1 - fine, fine], dim=1)
        chosen = GateDecision.hard(scores.argmax(1), 2)
        passed = scores if self.fault == "soft" else chosen.weights + scores - scores.detach()
        if self.fault == "ignored":
            passed = passed + 0 * self.scale
            return GateDecision(chosen.grains, chosen.assignment, passed)
        if self.fault == "idle":
            return chosen
        rows = 1 if self.fault == "small" else None
        return GateDecision(chosen.grains[:, :rows], passed[:, :, :rows], passed[:, :, :rows])


class TestBright(GateContract):
    def build(self):
        return Bright()


def test_every_registered_gate_is_held_to_the_contract():
    registered = {component.load() for component in components("gate") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in GateContract.__subclasses__()}
    assert held - {Bright} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("three", "test_it_says_between_how_many_granularities_it_chooses"),
        ("soft", "test_each_region_gets_a_granularity"),
        ("small", "test_each_region_gets_a_granularity"),
        ("mixing", "test_images_of_a_batch_do_not_meet_in_evaluation"),
        ("wasteful", "test_it_keeps_the_ratios_that_it_says"),
        ("ignored", "test_a_budget_reaches_what_is_learned"),
        ("forgetful", "test_calibration_lasts"),
        ("idle", "test_every_parameter_gets_a_gradient"),
        ("noisy", "test_evaluation_gives_the_same_again_and_changes_nothing"),
    ],
)
def test_the_contract_finds_a_gate_that_is(fault, test):
    assert_found(TestBright, test, lambda: Bright(fault))


@pytest.mark.parametrize("fault", ["untaught", "beyond"])
def test_the_contract_finds_lessons_that_do_not_teach(fault):
    class Broken(TestGainGate):
        def build(self):
            gate = GainGate(16, {4: 0.3, 8: 0.7})
            if fault == "untaught":
                teach = gate.teach
                gate.teach = lambda *given: teach(*given).detach()
            else:
                gate.lessons = lambda grains: (grains + 1)[None]
            return gate

    with pytest.raises((AssertionError, RuntimeError)):
        Broken().test_lessons_are_granularities_and_teach()
