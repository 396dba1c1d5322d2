"""Every registered budget holds the contract, and the contract finds what is broken."""

import pytest
import torch
from torch import Tensor

from vltok.codes import Ratios
from vltok.errors import UserError
from vltok.interfaces import Budget
from vltok.registry import components
from vltok.testing import BudgetContract
from vltok.tokenizers.budgets import CodeLengthBudget, RatioBudget

from .broken import assert_found


class TestRatioBudget(BudgetContract):
    def build(self):
        return RatioBudget({8: 0.3, 16: 0.7})


class TestRatioBudgetOfThreeGranularities(BudgetContract):
    def build(self):
        return RatioBudget({8: 0.2, 16: 0.3, 32: 0.5}, over="batch")


class TestRatioBudgetOfOneGranularity(BudgetContract):
    def build(self):
        return RatioBudget({8: 1.0})


class TestCodeLengthBudget(BudgetContract):
    def build(self):
        return CodeLengthBudget(30.0, [8, 16])


class TestCodeLengthBudgetOfThreeGranularities(BudgetContract):
    regions = (2, 3)

    def build(self):
        return CodeLengthBudget(40.0, [8, 16, 32], over="batch")


class Share(Budget):
    """Half of the regions are to be fine.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.register_buffer("seen", torch.zeros(()))

    @property
    def factors(self) -> tuple[int, ...]:
        return (8, 16) if self.fault == "reversed" else (16, 8)

    @property
    def ratios(self) -> Ratios:
        return Ratios((16, 8), (0.5, 0.5))

    def expected_length(self, regions: int) -> float:
        return regions * (5.0 if self.fault == "impossible" else 2.5)

    def forward(self, assignment: Tensor) -> Tensor:
        if assignment.shape[1] != 2 and self.fault != "any":
            raise UserError("two granularities are wanted")
        if self.fault == "counting":
            self.seen += 1
        fine = assignment[:, 1]
        if self.fault == "misplaced":
            fine = fine * torch.linspace(0, 2, fine.shape[1])[:, None]
        target = 0.9 if self.fault == "elsewhere" else 0.5
        losses = (fine.mean((1, 2)) - target).square()
        if self.fault == "cut":
            losses = losses.detach() + 0 * fine.mean((1, 2))
        if self.fault == "opposed":
            losses = -losses
        return losses if self.fault == "many" else losses.mean() + self.seen


class AtMost(Budget):
    """At most 40 codes on average."""

    @property
    def factors(self) -> tuple[int, ...]:
        return (16, 8)

    @property
    def ratios(self) -> None:
        return None

    def expected_length(self, regions: int) -> float:
        return 40.0

    def forward(self, assignment: Tensor) -> Tensor:
        if assignment.shape[1] != 2:
            raise UserError("two granularities are wanted")
        lengths = (assignment[:, 0] + 4 * assignment[:, 1]).sum((1, 2))
        return ((lengths.mean() - 40) / 48).relu().square()


class TestShare(BudgetContract):
    def build(self):
        return Share()


class TestAtMost(BudgetContract):
    is_cap = True

    def build(self):
        return AtMost()


def test_every_registered_budget_is_held_to_the_contract():
    registered = {component.load() for component in components("budget") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in BudgetContract.__subclasses__()}
    assert held - {Share, AtMost} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("reversed", "test_it_says_what_it_asks_for"),
        ("impossible", "test_it_says_what_it_asks_for"),
        ("many", "test_its_loss_is_a_number"),
        ("cut", "test_its_gradient_reaches_the_assignment"),
        ("opposed", "test_following_it_leads_to_what_it_asks_for"),
        ("elsewhere", "test_following_it_leads_to_what_it_asks_for"),
        ("misplaced", "test_it_sees_how_many_regions_have_a_granularity_not_where"),
        ("any", "test_a_decision_among_other_granularities_is_refused"),
        ("counting", "test_evaluation_gives_the_same_again_and_changes_nothing"),
    ],
)
def test_the_contract_finds_a_budget_that_is(fault, test):
    assert_found(TestShare, test, lambda: Share(fault))
