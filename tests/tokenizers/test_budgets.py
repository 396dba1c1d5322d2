import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.codes import CodeSpec, Ratios
from vltok.errors import UserError
from vltok.tokenizers.budgets import CodeLengthBudget, RatioBudget

CLOSE = {"rtol": 1e-5, "atol": 1e-8}  # targets are kept in float32


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_ratio_budget_equals_eq_7(parity, kind) -> None:
    tensors, config = parity("budget")
    share = config["dual"]["target_ratio"]
    gate = tensors[f"dual.{kind}.gate"].double()
    for over, name in (("image", "eq7_mean_of_per_image"), ("batch", "eq7_of_batch_mean_ratio")):
        budget = RatioBudget({8: share, 16: 1 - share}, weight=1.0, over=over).double()
        torch.testing.assert_close(budget(gate), tensors[f"dual.{kind}.{name}"], **CLOSE)
    single = torch.stack([RatioBudget({8: share, 16: 1 - share}, weight=1.0).double()(image[None]) for image in gate])
    torch.testing.assert_close(single, tensors[f"dual.{kind}.eq7_per_image"], **CLOSE)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_ratio_budget_equals_eq_7_for_three(parity, kind) -> None:
    tensors, config = parity("budget")
    fine, median = config["triple"]["target_fine_ratio"], config["triple"]["target_median_ratio"]
    ratios = {8: fine, 16: median, 32: 1 - fine - median}
    gate = tensors[f"triple.{kind}.gate"].double()
    for over, name in (("image", "mean_of_per_image"), ("batch", "of_batch_mean_ratio")):
        budget = RatioBudget(ratios, weight=1.0, over=over).double()
        torch.testing.assert_close(budget(gate), tensors[f"triple.{kind}.eq7_fine_median_{name}"], **CLOSE)


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("make", ["ratio", "length"])
def test_over_the_batch_equals_the_originals_loss_and_gradient(parity, kind, make) -> None:
    tensors, config = parity("budget")
    settings = config["dual"]
    gate = tensors[f"dual.{kind}.gate"].requires_grad_()
    regions = gate.shape[2] * gate.shape[3]
    share = settings["target_ratio"]
    if make == "ratio":
        budget = RatioBudget({8: share, 16: 1 - share}, weight=settings["gamma"], over="batch")
    else:
        budget = CodeLengthBudget(regions * (1 + 3 * share), [16, 8], weight=settings["gamma"], over="batch")
    loss = budget(gate)
    torch.testing.assert_close(loss, tensors[f"dual.{kind}.loss_calculate_all_False"])
    if make == "length":  # the original counts codes; eq. (7) reads the same off the fine share alone
        (gradient,) = torch.autograd.grad(loss, gate)
        torch.testing.assert_close(gradient, tensors[f"dual.{kind}.grad_calculate_all_False"])


def one_hot(grains: torch.Tensor, granularities: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(grains, granularities).movedim(-1, 1).double()


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**31), st.sampled_from(["image", "batch"]))
def test_for_two_granularities_both_budgets_are_one(share, seed, over) -> None:
    grains = torch.randint(2, (3, 4, 5), generator=torch.Generator().manual_seed(seed))
    ratio = RatioBudget({4: share, 8: 1 - share}, over=over).double()
    length = CodeLengthBudget(20 * (1 + 3 * share), [4, 8], over=over).double()
    assignment = one_hot(grains, 2)
    torch.testing.assert_close(ratio(assignment), length(assignment), rtol=1e-5, atol=1e-6)
    assert ratio.expected_length(20) == pytest.approx(length.expected_length(20))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(8,), (8, 4), (16, 8, 4), (32, 16, 8, 4)]))
def test_a_met_target_costs_nothing_and_a_missed_one_something(seed, factors) -> None:
    grains = torch.randint(len(factors), (1, 4, 4), generator=torch.Generator().manual_seed(seed))
    assignment = one_hot(grains, len(factors))
    shares = assignment.mean(dim=(0, 2, 3)).tolist()
    codes = float(torch.tensor(CodeSpec(1, factors).codes_per_region)[grains].sum())
    ratios = dict(zip(factors, shares, strict=True))
    assert RatioBudget(ratios).double()(assignment) < 1e-12
    assert RatioBudget(ratios).expected_length(16) == pytest.approx(codes)
    assert CodeLengthBudget(codes, list(factors)).double()(assignment) < 1e-12
    if len(factors) > 1:
        other = one_hot((grains + 1) % len(factors), len(factors))
        assert (RatioBudget(ratios).double()(other) > 1e-4) == (
            other.mean(dim=(0, 2, 3)).tolist() != pytest.approx(shares)
        )


def test_a_miss_by_one_code_costs_something_under_autocast() -> None:
    budget = CodeLengthBudget(641.0, [8, 16])
    grains = torch.zeros(1, 16, 16, dtype=torch.long)
    grains[:, :8] = 1
    with torch.autocast("cpu", torch.bfloat16):
        assert budget(one_hot(grains, 2).float()) > 0


def test_each_image_or_the_batch() -> None:
    """A batch that meets the target although none of its images does."""
    assignment = one_hot(torch.tensor([0, 1])[:, None, None].expand(2, 2, 2), 2)
    for per_image, per_batch in (
        (RatioBudget({4: 0.5, 8: 0.5}), RatioBudget({4: 0.5, 8: 0.5}, over="batch")),
        (CodeLengthBudget(10.0, [4, 8]), CodeLengthBudget(10.0, [4, 8], over="batch")),
    ):
        assert per_image.double()(assignment).item() == pytest.approx(10 * 0.25)
        assert per_batch.double()(assignment).item() == 0


@pytest.mark.parametrize("over", ["image", "batch"])
def test_gradients(over) -> None:
    assignment = torch.rand(2, 3, 2, 2, dtype=torch.double, requires_grad=True)
    for budget in (RatioBudget({4: 0.2, 8: 0.3, 16: 0.5}, over=over), CodeLengthBudget(20.0, [4, 8, 16], over=over)):
        assert torch.autograd.gradcheck(budget.double(), (assignment,))


def test_the_weight_scales_and_the_coarsest_share_is_left_out() -> None:
    assignment = torch.zeros(1, 3, 1, 1)
    assignment[:, 0] = 1
    ratios = {4: 0.2, 8: 0.3, 16: 0.5}
    assert RatioBudget(ratios, weight=7.0)(assignment).item() == pytest.approx(7 * (0.2**2 + 0.3**2))


def test_one_granularity_costs_nothing() -> None:
    assignment = torch.ones(2, 1, 4, 4, requires_grad=True)
    for budget in (RatioBudget({16: 1.0}), CodeLengthBudget(16.0, [16])):
        loss = budget(assignment)
        loss.backward()
        assert loss.item() == 0 and budget.expected_length(16) == 16


def test_what_a_budget_asks_for() -> None:
    assert RatioBudget({8: 0.3, 16: 0.7}).ratios == Ratios((16, 8), (0.7, 0.3))
    assert RatioBudget({8: 0.3, 16: 0.7}).factors == CodeLengthBudget(9.0, [8, 16]).factors == (16, 8)
    assert CodeLengthBudget(9.0, [8, 16]).ratios is None
    assert RatioBudget({8: 0.5, 16: 0.5}).state_dict() == CodeLengthBudget(9.0, [8, 16]).state_dict() == {}


@pytest.mark.parametrize("length", [15, 65])
def test_lengths_out_of_reach(length) -> None:
    budget = CodeLengthBudget(float(length), [8, 16])
    for reach in (lambda: budget.expected_length(16), lambda: budget(torch.ones(1, 2, 4, 4) / 2)):
        with pytest.raises(UserError, match=rf"budget\.length is {length}, but images of 16 regions .* 16 to 64 codes"):
            reach()


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="sum to 1"):
        RatioBudget({8: 0.5, 16: 0.6})
    with pytest.raises(UserError, match=r"budget\.weight"):
        RatioBudget({16: 1.0}, weight=-1.0)
    with pytest.raises(UserError, match=r"budget\.factors"):
        CodeLengthBudget(100.0, [])
    with pytest.raises(UserError, match="12 is none of 8"):
        CodeLengthBudget(100.0, [8, 12])
    with pytest.raises(UserError, match=r"factors \[16, 8\], but the gate decides among 3"):
        RatioBudget({8: 0.5, 16: 0.5})(torch.ones(1, 3, 2, 2))
