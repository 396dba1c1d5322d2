import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.codes import CodeSpec, Ratios
from vltok.errors import UserError
from vltok.interfaces import Alternatives, GateDecision
from vltok.tokenizers.grain_steps import GrainSteps

SPECS = [CodeSpec(64, factors) for factors in ((8,), (16, 8), (16, 8, 4), (36, 12, 2), (32, 16, 8, 4))]


def steps_of(spec: CodeSpec, grid: tuple[int, int], batch: int = 2, seed: int = 0) -> tuple[GrainSteps, torch.Tensor]:
    """Steps of images with random scores, some of which are equal, and the scores, `[b n r]`."""
    generator = torch.Generator().manual_seed(seed)
    side = spec.sides[-1]
    maps = torch.randint(64, (spec.granularities, batch, grid[0] * side, grid[1] * side), generator=generator)
    scores = torch.randint(-9, 9, (batch, spec.granularities - 1, *grid), generator=generator) / 4
    grains = torch.randint(spec.granularities, (batch, *grid), generator=generator)
    decision = GateDecision.hard(grains, spec.granularities, step_scores=scores)
    return GrainSteps(Alternatives(decision, maps), spec), scores.flatten(2)


def every_choice(spec: CodeSpec, regions: int) -> torch.Tensor:
    """All grain maps of so many regions, `[choices r]`."""
    return torch.tensor(list(itertools.product(range(spec.granularities), repeat=regions)))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_steps_lead_from_the_coarsest_to_the_finest_and_gain_less_and_less(spec):
    steps, _ = steps_of(spec, (2, 3))
    count = steps.lengths.shape[1]
    assert count == 6 * (spec.granularities - 1) + 1
    assert (steps.scores.diff(dim=1) <= 0).all()
    for taken in range(count):
        codes = steps.after(torch.full((2,), taken)).validate(spec)
        assert codes.lengths.equal(steps.lengths[:, taken])
    assert steps.after(torch.zeros(2, dtype=torch.long)).grains.eq(0).all()
    assert codes.grains.eq(spec.granularities - 1).all()


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.granularities > 1], ids=str)
def test_no_other_choice_of_as_many_codes_gains_more(spec):
    steps, scores = steps_of(spec, (2, 2), seed=3)
    costs = torch.tensor(spec.codes_per_region).diff()
    worths = torch.nn.functional.pad((scores * costs[:, None]).cumsum(1), (0, 0, 1, 0))
    choices = every_choice(spec, 4)
    lengths = torch.tensor(spec.codes_per_region)[choices].sum(1)
    slack = 1e-4
    for taken in range(steps.lengths.shape[1]):
        codes = steps.after(torch.full((2,), taken))
        for image in range(2):
            gains = worths[image][choices, torch.arange(4)].sum(1)
            mine = worths[image][codes.grains[image].flatten(), torch.arange(4)].sum()
            # a stretch of which the mean counts is worth it only as a whole
            scored = steps.scores[image]
            whole = taken in (0, len(scored)) or scored[taken - 1] > scored[taken]
            if whole:
                assert mine >= gains[lengths == codes.lengths[image]].max() - slack


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SPECS), st.integers(0, 100), st.data())
def test_as_many_codes_as_can_be_are_kept(spec, seed, data):
    steps, _ = steps_of(spec, (1, 4), seed=seed)
    possible = torch.tensor(spec.codes_per_region)[every_choice(spec, 4)].sum(1).unique()
    most = data.draw(st.integers(int(possible.min()), int(possible.max()) + 5))
    codes = steps.within(torch.full((2,), most)).validate(spec)
    assert codes.lengths.eq(possible[possible <= most].max()).all()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_shares_of_granularities_are_met_to_the_nearest_region(spec):
    steps, _ = steps_of(spec, (4, 5))
    shares = torch.arange(1, spec.granularities + 1) / sum(range(1, spec.granularities + 1))
    codes = steps.at(Ratios(spec.factors, tuple(shares.tolist()))).validate(spec)
    for granularity, share in enumerate(shares):
        assert ((codes.grains == granularity).flatten(1).sum(1) - share * 20).abs().max() < 1


def test_the_logits_rank_where_a_gate_says_nothing_else():
    spec = CodeSpec(64, (16, 8))
    logits = torch.tensor([[[[0.0, 0.0, 0.0]], [[1.0, -1.0, 3.0]]]])
    maps = torch.zeros(2, 1, 2, 6, dtype=torch.long)
    steps = GrainSteps(Alternatives(GateDecision.hard(logits.argmax(1), 2, logits), maps), spec)
    assert steps.own.grains.tolist() == [[[1, 0, 1]]]
    assert steps.after(torch.tensor([1])).grains.tolist() == [[[0, 0, 1]]]
    # 0 parts what the gate itself chooses
    assert (steps.scores > 0).sum() == 2


def test_a_gate_that_ranks_nothing_is_refused():
    decision = GateDecision.hard(torch.zeros(1, 2, 2, dtype=torch.long), 2)
    with pytest.raises(UserError, match="ranks no regions"):
        GrainSteps(Alternatives(decision, torch.zeros(2, 1, 4, 4, dtype=torch.long)), CodeSpec(64, (16, 8)))
