"""What every budget must hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Budget
from vltok.testing.modules import STEPS, TrainableContract


class BudgetContract(TrainableContract[Budget]):
    """Tests of a budget, which a test class inherits.

    Attributes:
        regions: The grid of regions of the images to try; what the budget asks for must be possible there.
        is_cap: Whether fewer codes than the budget asks for are as good, so that it only ever shortens.
    """

    regions: tuple[int, int] = (4, 4)
    is_cap: bool = False

    def test_it_says_what_it_asks_for(self):
        budget = self.build()
        spec = self._spec(budget)
        assert budget.factors == spec.factors, "factors go from coarse to fine"
        count = spec.positions(0)
        expected = budget.expected_length(count)
        assert count * spec.codes_per_region[0] <= expected <= count * spec.codes_per_region[-1]
        if budget.ratios is not None:
            assert budget.ratios.factors == budget.factors
            assert expected == pytest.approx(count * budget.ratios.codes_per_region)

    def test_its_loss_is_a_number(self):
        for mode in (True, False):
            budget = self.build().train(mode)
            for batch in (1, 3):
                loss = budget(self._assignment(budget, batch).softmax(1))
                assert loss.dim() == 0 and loss.dtype == torch.float32 and loss.isfinite()

    def test_its_gradient_reaches_the_assignment(self):
        """Within the first steps: a multiplier may start at zero."""
        for granularity in range(len(self.build().factors)):
            budget = self.build().train()
            logits = self._assignment(budget, 2)
            assignment = (logits + _towards(granularity, logits)).softmax(1).requires_grad_()
            gradients = [torch.autograd.grad(budget(assignment), assignment)[0] for _ in range(STEPS)]
            assert all(gradient.isfinite().all() for gradient in gradients)
            met = self._off(budget, assignment) < 0.05 * self._span(budget)
            assert gradients[-1].any() or met, "no gradient reaches an assignment that is not what is asked for"

    def test_following_it_leads_to_what_it_asks_for(self):
        """From far too few codes and from far too many."""
        for start in (0, -1):
            budget = self.build().train()
            logits = self._assignment(budget, 3)
            logits = (0.1 * logits + 0.5 * _towards(start, logits)).requires_grad_()
            optimizer = torch.optim.Adam([logits, *budget.parameters()], lr=0.03)
            for _ in range(400):
                optimizer.zero_grad()
                budget(logits.softmax(1)).backward()
                optimizer.step()
            assignment = logits.detach().softmax(1)
            off = self._off(budget, assignment)
            assert off < 0.1 * self._span(budget), f"{off:.1f} codes off what is asked for"
            if budget.ratios is not None:
                shares = assignment.mean((0, 2, 3))
                torch.testing.assert_close(shares, torch.tensor(budget.ratios.shares), rtol=0, atol=0.1)

    def test_it_sees_how_many_regions_have_a_granularity_not_where(self):
        budget = self.build().eval()
        assignment = self._assignment(budget, 2).softmax(1)
        turned = assignment.flip(2, 3)
        torch.testing.assert_close(budget(turned), budget(assignment))

    def test_a_decision_among_other_granularities_is_refused(self):
        budget = self.build()
        height, width = self.regions
        with pytest.raises(UserError):
            budget(torch.ones(2, len(budget.factors) + 1, height, width) / (len(budget.factors) + 1))

    def _spec(self, budget: Budget) -> CodeSpec:
        return CodeSpec(1, tuple(budget.factors), regions=self.regions)

    def _off(self, budget: Budget, assignment: Tensor) -> float:
        """How many codes the mean length of an assignment is from what the budget asks for."""
        spec = self._spec(budget)
        lengths = assignment.detach().sum((2, 3)) @ torch.tensor(spec.codes_per_region, dtype=torch.float32)
        off = float(lengths.mean()) - budget.expected_length(spec.positions(0))
        return max(off, 0.0) if self.is_cap else abs(off)

    def _span(self, budget: Budget) -> int:
        """What code lengths can span."""
        spec = self._spec(budget)
        return max(spec.longest_length - spec.positions(0), 1)

    def _assignment(self, budget: Budget, batch: int) -> Tensor:
        """Logits of an assignment."""
        shape = (batch, len(budget.factors), *self.regions)
        return self._there(torch.randn(shape, generator=torch.Generator().manual_seed(0)))

    def _respond(self, module: Budget) -> list[Tensor]:
        return [module(self._assignment(module, 3).softmax(1))]

    def _loss(self, module: Budget) -> Tensor:
        return module(self._assignment(module, 3).requires_grad_().softmax(1))


def _towards(granularity: int, logits: Tensor) -> Tensor:
    """What to add to logits, so that nearly every region gets a granularity."""
    added = torch.zeros_like(logits)
    added[:, granularity] = 6
    return added
