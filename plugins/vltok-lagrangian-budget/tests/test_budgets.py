import pytest
import torch
from torch import nn

from vltok.codes import Ratios
from vltok.errors import UserError
from vltok.interfaces import Budget
from vltok.testing import BudgetContract
from vltok_lagrangian_budget.budgets import LagrangianCodeLengthBudget, LagrangianRatioBudget


class TestRatioBudget(BudgetContract):
    def build(self):
        return LagrangianRatioBudget({8: 0.3, 16: 0.7})


class TestRatioBudgetOfThreeGranularities(BudgetContract):
    def build(self):
        return LagrangianRatioBudget({8: 0.2, 16: 0.3, 32: 0.5})


class TestCodeLengthBudget(BudgetContract):
    def build(self):
        return LagrangianCodeLengthBudget(40.0, [16, 8])


class TestCodeLengthBudgetOfThreeGranularities(BudgetContract):
    def build(self):
        return LagrangianCodeLengthBudget(70.0, [8, 16, 32])


class ToyGate(nn.Module):
    """Regions that gain by finer codes as much as they are worth, from 0 to 0.05, which it sees and learns to use."""

    def __init__(self, granularities: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.worth = torch.rand(16, 1, 8, 8)
        self.gains = 0.05 * self.worth * torch.linspace(0, 1, granularities).view(-1, 1, 1)
        self.score = nn.Conv2d(1, granularities, 1)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The assignment, as a gate's: one-hot, with the gradient of a softmax; and the loss without a budget."""
        soft = self.score(4 * self.worth - 2).softmax(dim=1)
        hard = nn.functional.one_hot(soft.argmax(1), soft.shape[1]).movedim(-1, 1)
        return hard + (soft - soft.detach()), -(soft * self.gains).sum(1).mean()


def train(budget: Budget, gate: ToyGate) -> torch.Tensor:
    """Train a gate under a budget, and give the share of each granularity in the end."""
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.03)
    for _ in range(600):
        assignment, loss = gate()
        optimizer.zero_grad()
        (loss + budget(assignment)).backward()
        optimizer.step()
    return gate()[0].detach().mean(dim=(0, 2, 3))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2), (0.5, 0.3, 0.2)])
def test_the_ratios_are_met_within_a_percent(shares):
    factors = [4 * 2**k for k in reversed(range(len(shares)))]
    budget = LagrangianRatioBudget(dict(zip(factors, shares, strict=True)))
    found = train(budget, ToyGate(len(shares)))
    torch.testing.assert_close(found, torch.tensor(shares), atol=0.01, rtol=0)


def test_a_length_is_met_within_a_percent():
    budget = LagrangianCodeLengthBudget(120.0, [4, 8])
    shares = train(budget, ToyGate(2))
    assert 64 * (shares[0] + 4 * shares[1]) == pytest.approx(120, rel=0.01)


def test_a_penalty_alone_stays_beside_the_target():
    """What the multiplier is for: without it the gain of finer codes holds the share above the target."""
    target = {4: 0.2, 8: 0.8}
    frozen = LagrangianRatioBudget(target, weight=0.2).eval()
    assert train(frozen, ToyGate(2))[1] > 0.25
    assert train(LagrangianRatioBudget(target, weight=0.2), ToyGate(2))[1] == pytest.approx(0.2, abs=0.01)


def test_the_multiplier_is_what_the_last_region_gains():
    budget = LagrangianRatioBudget({4: 0.2, 8: 0.8})
    train(budget, ToyGate(2))
    # the fifth that is worth most starts at 0.8 of 0.05
    assert budget.multipliers.values.item() == pytest.approx(0.04, rel=0.1)


def test_the_loss_is_that_of_the_lagrangian():
    budget = LagrangianRatioBudget({4: 0.25, 8: 0.75}, weight=2.0, rate=0.05)
    assignment = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1).expand(3, 2, 4, 4).clone().requires_grad_()
    first, second = budget(assignment), budget(assignment)
    # the gap is ¼; after one step the multiplier is rate · 2λ · gap = 1/20
    assert first.item() == pytest.approx(2 / 16)
    assert second.item() == pytest.approx(2 / 16 + 1 / 80)
    gradient = torch.autograd.grad(second, assignment)[0]
    assert gradient[:, 1].sum().item() == pytest.approx(2 * 2 / 4 + 1 / 20) and not gradient[:, 0].any()


def test_a_multiplier_does_not_run_away_while_a_gap_closes():
    budget = LagrangianRatioBudget({4: 0.25, 8: 0.75}, weight=2.0)
    for _ in range(1000):
        budget(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))
    assert budget.multipliers.values.item() == pytest.approx(2 * 2 * 0.1)


def test_evaluation_leaves_the_multiplier_and_training_keeps_it():
    budget = LagrangianRatioBudget({4: 0.25, 8: 0.75})
    assignment = torch.full((2, 2, 3, 3), 0.5)
    budget.eval()(assignment)
    assert not budget.multipliers.values.any()
    budget.train()(assignment)
    assert set(budget.state_dict()) == {"multipliers.values"}
    other = LagrangianRatioBudget({4: 0.25, 8: 0.75})
    other.load_state_dict(budget.state_dict())
    assert other.eval()(assignment) == budget.eval()(assignment) != 0


def test_one_granularity_has_nothing_to_hold():
    budget = LagrangianRatioBudget({8: 1.0})
    assert budget(torch.ones(2, 1, 4, 4, requires_grad=True)) == 0
    assert LagrangianCodeLengthBudget(16.0, [8])(torch.ones(2, 1, 4, 4)) == 0


def test_it_says_what_it_asks_for():
    budget = LagrangianRatioBudget({8: 0.5, 16: 0.5})
    assert budget.ratios == Ratios((16, 8), (0.5, 0.5)) and budget.expected_length(4) == 10
    budget = LagrangianCodeLengthBudget(10, [8, 16])
    assert budget.ratios is None and budget.factors == (16, 8) and budget.expected_length(4) == 10


@pytest.mark.parametrize(
    ("key", "build"),
    [
        ("ratios", lambda: LagrangianRatioBudget({8: 0.5, 16: 0.6})),
        ("weight", lambda: LagrangianRatioBudget({8: 0.5, 16: 0.5}, weight=0.0)),
        ("rate", lambda: LagrangianRatioBudget({8: 0.5, 16: 0.5}, rate=0.0)),
        ("rate", lambda: LagrangianCodeLengthBudget(10, [8, 16], rate=1.5)),
        ("factors", lambda: LagrangianCodeLengthBudget(10, [])),
        ("multiple", lambda: LagrangianCodeLengthBudget(10, [8, 12])),
        ("length is 17", lambda: LagrangianCodeLengthBudget(17, [8, 16]).expected_length(4)),
        ("factors", lambda: LagrangianRatioBudget({8: 0.5, 16: 0.5})(torch.ones(1, 3, 2, 2))),
    ],
)
def test_what_cannot_be_is_refused(key, build):
    with pytest.raises(UserError, match=key):
        build()
