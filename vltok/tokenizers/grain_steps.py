"""Which regions get finer codes, for any number of them: the gate's scores rank all steps by gain for cost.

Axis letters: b image, k granularity, r region, n step.
"""

import itertools
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.code_spec import CodeSpec, Ratios
from vltok.codes import Codes
from vltok.errors import UserError
from vltok.interfaces import Alternatives
from vltok.interfaces.steering import Candidates, Proportioned


class GrainSteps(Candidates, Proportioned):
    """What images of a gridded tokenizer could be encoded to.

    A step takes one region to its next finer granularity. It counts by what it gains for a code; where a region's next
    step gains more than the one before, both count by their mean (the slopes of the least concave curve over what the
    region gains), so that steps in falling order gain most for any number of codes.

    Args:
        alternatives: The images' codes at each granularity.
        spec: What the codes may be.

    Raises:
        UserError: There are several granularities, and the gate ranks no regions.
    """

    def __init__(self, alternatives: Alternatives, spec: CodeSpec) -> None:
        self._alternatives = alternatives
        self._spec = spec
        decision = alternatives.decision
        grains = decision.grains.flatten(1)
        self._costs = spec.codes_per_step
        costs = grains.new_tensor(self._costs)
        if not self._costs:
            scores = grains.new_zeros(grains.shape[0], 0, grains.shape[1], dtype=torch.float32)
        elif decision.step_scores is not None:
            scores = decision.step_scores.flatten(2)
        elif decision.logits is not None:
            scores = decision.logits.flatten(2).diff(dim=1) / costs[:, None]
        else:
            raise UserError("the gate ranks no regions, so that no rate can be chosen; others do, such as 'gain'")
        self._slopes = _concave(scores.float(), costs)
        ranked = self._slopes.flatten(1).sort(dim=1, descending=True, stable=True)
        self._scores, self._ranks = ranked.values, ranked.indices.argsort(dim=1)
        spent = costs.repeat_interleave(grains.shape[1])[ranked.indices]
        fewest = grains.shape[1] * spec.codes_per_region[0]
        self._lengths = fewest + torch.nn.functional.pad(spent.cumsum(1), (1, 0))

    @property
    def own(self) -> Codes:
        return self._codes(self._alternatives.decision.grains.flatten(1))

    @property
    def lengths(self) -> Int[Tensor, "b _"]:
        return self._lengths

    @property
    def scores(self) -> Float[Tensor, "b n"]:
        return self._scores

    def after(self, steps: Int[Tensor, " b"]) -> Codes:
        return self._codes(self._taken(steps).sum(dim=1))

    def within(self, most: Int[Tensor, " b"]) -> Codes:
        taken = self._taken(self._steps_within(most))
        counts = taken.sum(dim=2)
        return self._codes(self._moved(taken.sum(dim=1), counts, self._filled(counts, most)))

    def at(self, ratios: Ratios) -> Codes:
        regions = self._slopes.shape[2]
        finer = list(itertools.accumulate(reversed(ratios.shares[1:])))[::-1]
        wanted = self._ranks.new_tensor([round(share * regions) for share in finer]).expand(len(self._ranks), -1)
        codes = self._lengths[:, 0] + (wanted * wanted.new_tensor(self._costs)).sum(dim=1)
        taken = self._taken(self._steps_within(codes))
        return self._codes(self._moved(taken.sum(dim=1), taken.sum(dim=2), wanted))

    def _steps_within(self, most: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return (self._lengths[:, 1:] <= most[:, None]).sum(dim=1)

    def _taken(self, steps: Int[Tensor, " b"]) -> Bool[Tensor, "b _ r"]:
        """For each granularity but the coarsest, which regions have it or a finer one."""
        return (self._ranks < steps[:, None]).view(self._slopes.shape)

    def _codes(self, grains: Int[Tensor, "b r"]) -> Codes:
        shaped = grains.view(self._alternatives.decision.grains.shape)
        return Codes.from_code_map(self._alternatives.mixture(shaped), shaped, self._spec)

    def _filled(self, counts: Int[Tensor, "b n"], most: Int[Tensor, " b"]) -> Int[Tensor, "b n"]:
        """The numbers of steps of each granularity near those given that come nearest to a length from below.

        The steps in falling order stop where the next one costs too much, though cheaper ones may fit. So numbers about
        these are tried, from the finest granularity on, each within what the coarser ones can still make up for.
        """
        costs, regions = self._costs, self._slopes.shape[2]
        if len(costs) < 2:
            return counts
        left = (most - self._lengths[:, 0])[:, None]
        tried: list[Tensor] = []  # of each granularity, from the finest on, `[b c]`
        for step in reversed(range(1, len(costs))):
            finer = tried[-1] if tried else torch.zeros_like(left)
            fewest = -((sum(costs[:step]) * regions - left).div(costs[step], rounding_mode="floor"))
            highest = left.div(sum(costs[: step + 1]), rounding_mode="floor").clamp(max=regions).maximum(finer)
            nearest = counts[:, step, None].clamp(min=fewest).maximum(finer).minimum(highest)
            # so many steps of another cost leave the cheapest ones any remainder that they can leave
            reach = costs[0] // math.gcd(costs[0], costs[step])
            offsets = torch.arange(-reach, reach + 1, device=left.device)
            spread = (nearest[..., None] + offsets).flatten(1)
            tried = [each.repeat_interleave(len(offsets), dim=1) for each in tried]
            left = left.repeat_interleave(len(offsets), dim=1) - spread * costs[step]
            tried.append(spread)
        tried.append(left.div(costs[0], rounding_mode="floor").clamp(max=regions))
        numbers = torch.stack(tried[::-1], dim=2)
        nested = (numbers[..., :-1] >= numbers[..., 1:]).all(dim=2) & (numbers[..., -1] >= 0)
        short = left - numbers[..., 0] * costs[0]
        moved = ((numbers - counts[:, None]).abs() * numbers.new_tensor(costs)).sum(dim=2)
        # first as many codes as can be, then as near as can be to the steps in falling order
        best = torch.where(nested, short * (1 + moved.amax()) + moved, torch.iinfo(torch.long).max).argmin(dim=1)
        return numbers.gather(1, best[:, None, None].expand(-1, 1, numbers.shape[2]))[:, 0]

    def _moved(
        self, grains: Int[Tensor, "b r"], counts: Int[Tensor, "b _"], wanted: Int[Tensor, "b _"]
    ) -> Int[Tensor, "b r"]:
        """Other numbers of steps of each granularity: the least steps are taken back, then the best ones taken."""
        fewer = counts.minimum(wanted)
        for step in reversed(range(len(self._costs))):
            grains = grains - self._first(grains == step + 1, self._slopes[:, step], (counts - fewer)[:, step])
        for step in range(len(self._costs)):
            grains = grains + self._first(grains == step, -self._slopes[:, step], (wanted - fewer)[:, step])
        return grains

    @staticmethod
    def _first(which: Bool[Tensor, "b r"], by: Float[Tensor, "b r"], count: Int[Tensor, " b"]) -> Int[Tensor, "b r"]:
        """1 where a region is among so many of those in question that come first, otherwise 0."""
        order = torch.where(which, by, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
        return (order < count[:, None]).long()


def _concave(scores: Float[Tensor, "b n r"], costs: Int[Tensor, " n"]) -> Float[Tensor, "b n r"]:
    """The slopes of the least concave curve over what steps of these gains for a code add up to; they never rise.

    That of a step is the least, over where a stretch that holds it begins, of the largest mean, over where it ends.
    """
    steps = len(costs)
    if steps < 2:
        return scores
    gains = torch.nn.functional.pad((scores * costs[:, None]).cumsum(1), (0, 0, 1, 0))
    spent = torch.nn.functional.pad(costs.cumsum(0), (1, 0))
    slopes: list[Tensor] = []
    for step in range(steps):
        means = [
            torch.stack(
                [(gains[:, end] - gains[:, start]) / (spent[end] - spent[start]) for end in range(step + 1, steps + 1)]
            ).amax(dim=0)
            for start in range(step + 1)
        ]
        slopes.append(torch.stack(means).amin(dim=0))
    return torch.stack(slopes, dim=1)
