import itertools

import pytest
import torch

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.priors.lengths import CoarseToFinePlan, RasterPlan

SPEC = CodeSpec(8, (4, 2, 1), (1, 3))
# counts of regions of each granularity, and the code length that they give
MIXES = {
    mix: sum(count * cost for count, cost in zip(mix, SPEC.codes_per_region, strict=True))
    for mix in itertools.product(range(4), repeat=3)
    if sum(mix) == 3
}


def mixes_within(plan: CoarseToFinePlan) -> set[tuple[int, ...]]:
    """Every mix of granularities that a plan's choices lead to; each path must end in one."""
    found = set()

    def walk(granularity: int, unclaimed: int, spent: int, counts: tuple[int, ...]) -> None:
        if not unclaimed:
            found.add(counts)
            return
        state = [torch.tensor([value]) for value in (granularity, unclaimed, spent)]
        claim, end = (choice.item() for choice in plan.choices(*state))
        assert claim or end
        if claim:
            more = tuple(count + (k == granularity) for k, count in enumerate(counts))
            walk(granularity, unclaimed - 1, spent + SPEC.codes_per_region[granularity], more)
        if end:
            walk(granularity + 1, unclaimed, spent, counts)

    walk(0, 3, 0, (0, 0, 0))
    return found


def mixes_in_raster_order(sampling: SamplingConfig) -> set[tuple[int, ...]]:
    """Likewise, where region follows region."""
    plan = RasterPlan.of(sampling, SPEC, torch.device("cpu"))
    found = {(0, 0, 0)}
    for _ in range(3):
        allowed = {counts: plan.choices(torch.tensor([counts]))[0].tolist() for counts in found}
        assert all(any(choices) for choices in allowed.values())
        found = {
            tuple(count + (k == granularity) for k, count in enumerate(counts))
            for counts, choices in allowed.items()
            for granularity in range(3)
            if choices[granularity]
        }
    return found


CONTROLS = [
    {},
    *({"codes": codes} for codes in sorted(set(MIXES.values()))),
    *({"max_codes": codes} for codes in (3, 5, 20, 21, 48, 1000)),
    *({"ratios": ratios} for ratios in ({4: 1.0}, {1: 1.0}, {1: 0.34, 2: 0.33, 4: 0.33}, {1: 0.6, 4: 0.4})),
]


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_every_order_leaves_the_same_mixes(control):
    sampling = SamplingConfig(**control)
    assert mixes_in_raster_order(sampling) == mixes_within(CoarseToFinePlan.of(sampling, SPEC))


def test_without_control_every_mix_is_possible():
    assert mixes_within(CoarseToFinePlan.of(SamplingConfig(), SPEC)) == set(MIXES)


@pytest.mark.parametrize("codes", sorted(set(MIXES.values())))
def test_an_exact_length_leaves_all_and_only_the_mixes_that_have_it(codes):
    expected = {mix for mix, length in MIXES.items() if length == codes}
    assert mixes_within(CoarseToFinePlan.of(SamplingConfig(codes=codes), SPEC)) == expected


@pytest.mark.parametrize("codes", [3, 5, 20, 21, 48, 1000])
def test_an_upper_bound_leaves_all_and_only_the_mixes_below_it(codes):
    expected = {mix for mix, length in MIXES.items() if length <= codes}
    assert mixes_within(CoarseToFinePlan.of(SamplingConfig(max_codes=codes), SPEC)) == expected


@pytest.mark.parametrize(
    ("ratios", "mix"),
    [
        ({4: 1.0}, (3, 0, 0)),
        ({1: 1.0}, (0, 0, 3)),
        ({1: 0.34, 2: 0.33, 4: 0.33}, (1, 1, 1)),
        ({1: 0.6, 4: 0.4}, (1, 0, 2)),
    ],
)
def test_ratios_leave_one_mix(ratios, mix):
    assert mixes_within(CoarseToFinePlan.of(SamplingConfig(ratios=ratios), SPEC)) == {mix}


def test_lengths_that_no_image_has_are_refused():
    with pytest.raises(UserError, match="nearest is 6"):
        CoarseToFinePlan.of(SamplingConfig(codes=7), SPEC)
    with pytest.raises(UserError, match="nearest is 48"):
        CoarseToFinePlan.of(SamplingConfig(codes=1000), SPEC)
    with pytest.raises(UserError, match="from 3 to 48"):
        CoarseToFinePlan.of(SamplingConfig(codes=-1), SPEC)
    with pytest.raises(UserError, match="at least 3"):
        CoarseToFinePlan.of(SamplingConfig(max_codes=2), SPEC)
    with pytest.raises(UserError, match="factors"):
        CoarseToFinePlan.of(SamplingConfig(ratios={8: 1.0}), SPEC)
    with pytest.raises(UserError, match="give one"):
        SamplingConfig(codes=3, max_codes=4)
