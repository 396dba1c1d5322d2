"""What every gate must hold."""

from __future__ import annotations

import torch
from torch import Tensor

from vltok.interfaces import Calibrated, Foreseeing, Gate, GateDecision, Taught
from vltok.testing.modules import TrainableContract, pictures


class GateContract(TrainableContract[Gate]):
    """Tests of a gate, which a test class inherits.

    Attributes:
        channels: The width of the feature maps that the gate is to decide from.
    """

    channels: int = 16

    def test_it_says_between_how_many_granularities_it_chooses(self):
        gate = self.build()
        assert gate.granularities >= 1
        assert gate.ratios is None or len(gate.ratios.factors) == gate.granularities

    def test_each_region_gets_a_granularity(self):
        for mode in (True, False):
            gate = self.build()
            self._calibrate(gate)
            for batch, regions in ((1, (1, 1)), (3, (2, 3))):
                decision = gate.train(mode)(*self._inputs(gate, batch, regions))
                assert decision.grains.shape == (batch, *regions) and not decision.grains.dtype.is_floating_point
                assert decision.grains.min() >= 0 and decision.grains.max() < gate.granularities
                chosen = torch.nn.functional.one_hot(decision.grains, gate.granularities).movedim(-1, 1).float()
                for name in ("assignment", "weights"):
                    found = getattr(decision, name)
                    assert found.shape == chosen.shape, name
                    torch.testing.assert_close(found.detach().float(), chosen, msg=f"{name} is one-hot in value")
                assert decision.logits is None or decision.logits.shape == chosen.shape

    def test_images_of_a_batch_do_not_meet_in_evaluation(self):
        gate = self.build()
        self._calibrate(gate)
        features, images = self._inputs(gate, 6)
        together = gate.eval()(features, images).grains
        for index in range(6):
            part = slice(index, index + 1)
            assert gate([feature[part] for feature in features], images[part]).grains.equal(together[part])

    def test_it_keeps_the_ratios_that_it_says(self):
        gate = self.build().train()
        self._calibrate(gate)
        inputs = self._inputs(gate, 16)
        for _ in range(100):
            grains = gate(*inputs).grains
        for decided in (grains, gate.eval()(*inputs).grains):
            shares = torch.bincount(decided.flatten(), minlength=gate.granularities) / decided.numel()
            if gate.ratios is not None:
                torch.testing.assert_close(shares, torch.tensor(gate.ratios.shares), rtol=0, atol=0.1)

    def test_a_budget_reaches_what_is_learned(self):
        """Where neither the gate itself keeps the use of codes near a target, nor lessons teach it."""
        gate = self.build().train()
        self._calibrate(gate)
        parameters = [parameter for parameter in gate.parameters() if parameter.requires_grad]
        if parameters and gate.ratios is None and not isinstance(gate, Taught):
            assignment = gate(*self._inputs(gate, 4)).assignment
            assert assignment.requires_grad, "assignment has no gradient"
            (assignment * torch.randn(assignment.shape)).sum().backward()
            assert any(parameter.grad is not None and parameter.grad.any() for parameter in parameters)

    def test_calibration_lasts(self):
        gate, other = self.build(), self.build()
        self._calibrate(gate)
        if isinstance(gate, Calibrated):
            assert gate.calibrated
            other.load_state_dict(gate.state_dict())
            assert other.calibrated
            inputs = self._inputs(gate, 4)
            assert other.eval()(*inputs).grains.equal(gate.eval()(*inputs).grains)

    def test_calibration_on_another_device_measures_the_same(self):
        gate, other = self.build(), self.build()
        if isinstance(gate, Calibrated) and not gate.calibrated:
            self._calibrate(gate)
            with self._elsewhere(other):
                other.calibrate([self._inputs(other, 16)[1]])
                torch.testing.assert_close(
                    {name: value.cpu() for name, value in other.state_dict().items()}, gate.state_dict()
                )

    def test_lessons_are_granularities_and_teach(self):
        gate = self.build().train()
        self._calibrate(gate)
        if isinstance(gate, Taught):
            assert 0 < gate.taught_share <= 1
            features, images = self._inputs(gate, 4)
            grains = gate(features, images).grains
            lessons = gate.lessons(grains)
            assert lessons.shape[1:] == grains.shape and len(lessons) >= 1
            assert lessons.min() >= 0 and lessons.max() < gate.granularities
            loss = gate.teach(features, lessons, torch.rand(lessons.shape))
            assert loss.dim() == 0 and loss.isfinite() and loss.requires_grad

    def test_what_it_foresees_teaches_it_and_not_the_encoder(self):
        gate = self.build().train()
        if isinstance(gate, Foreseeing):
            features, _ = self._inputs(gate, 4)
            for feature in features:
                feature.requires_grad_()
            loss = gate.foresee(features, self._codes(gate, features))
            assert loss.dim() == 0 and loss.isfinite() and loss.requires_grad
            loss.backward()
            assert all(feature.grad is None for feature in features)

    def _codes(self, gate: Foreseeing, features: list[Tensor]) -> Tensor:
        """Codes of the finest granularity."""
        generator = torch.Generator().manual_seed(0)
        shape = (len(features[0]), *features[-1].shape[2:])
        return self._there(torch.randint(gate.codebook_size, shape, generator=generator))

    def _inputs(self, gate: Gate, batch: int, regions: tuple[int, int] = (4, 4)) -> tuple[list[Tensor], Tensor]:
        """Feature maps from coarse to fine, and images."""
        factors = [4 * 2**k for k in reversed(range(gate.granularities))]
        if gate.ratios is not None:
            factors = list(gate.ratios.factors)
        generator = torch.Generator().manual_seed(0)
        height, width = (side * factors[0] for side in regions)
        features = [
            self._there(torch.randn(batch, self.channels, height // factor, width // factor, generator=generator))
            for factor in factors
        ]
        return features, self._there(pictures(batch, height, width))

    def _calibrate(self, gate: Gate) -> None:
        # on another device it is asked nothing: its answer would be read back
        if isinstance(gate, Calibrated) and self._device == "cpu" and not gate.calibrated:
            gate.calibrate([self._inputs(gate, 16)[1]])

    def _respond(self, module: Gate) -> list[Tensor]:
        self._calibrate(module)
        decision: GateDecision = module(*self._inputs(module, 4))
        return [decision.grains, decision.assignment, decision.weights]

    def _loss(self, module: Gate) -> Tensor:
        self._calibrate(module)
        features, images = self._inputs(module, 4)
        decision = module(features, images)
        total = (decision.weights * torch.randn_like(decision.weights)).sum()
        total = total + (decision.assignment * torch.randn_like(decision.assignment)).sum()
        if isinstance(module, Taught):
            lessons = module.lessons(decision.grains)
            total = total + module.teach(features, lessons, torch.rand(lessons.shape, device=lessons.device))
        if isinstance(module, Foreseeing):
            total = total + module.foresee(features, self._codes(module, features))
        return total
