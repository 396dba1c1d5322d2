"""Control of the code length in sampling: which choices leave a length that was asked for within reach.

An image is drawn from coarse to fine. Its state is the granularity at hand, the number of regions that no granularity
has claimed yet, and the codes that it has spent, where a claimed region counts with all its codes. Two choices change
it: claiming a region for the granularity at hand, and ending that granularity. A plan says of every state which of them
may be taken; drawing among those meets the length exactly.

Axis letters: k granularity, r unclaimed regions (0 … all), c codes spent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vltok.codes import CodeSpec, Ratios
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig


@dataclass(frozen=True, eq=False)
class LengthPlan:
    """What may be done in every state.

    Attributes:
        claim: Whether a region may be claimed, `[k r c]`.
        end: Whether the granularity may end, `[k r c]`; never the finest, which takes what is left.
    """

    claim: Bool[Tensor, "k r c"]
    end: Bool[Tensor, "k r c"]

    @classmethod
    def of(cls, sampling: SamplingConfig, spec: CodeSpec) -> LengthPlan:
        """The plan that a sampling configuration asks for.

        Raises:
            UserError: No image can have such a length.
        """
        if sampling.codes is not None:
            return exactly(sampling.codes, spec)
        if sampling.max_codes is not None:
            return at_most(sampling.max_codes, spec)
        if sampling.ratios is not None:
            return at_ratios(sampling.ratios, spec)
        return _of_reachable(torch.ones(spec.granularities + 1, _regions(spec) + 1, 1, dtype=torch.bool), spec)

    def to(self, device: torch.device) -> LengthPlan:
        """The same plan on a device."""
        return LengthPlan(self.claim.to(device), self.end.to(device))

    def choices(
        self, granularity: Int[Tensor, " b"], unclaimed: Int[Tensor, " b"], spent: Int[Tensor, " b"]
    ) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
        """Whether each image may claim a region, and end its granularity."""
        # plans that do not depend on the codes spent have an axis of one
        state = granularity, unclaimed, spent.clamp(max=self.claim.shape[2] - 1)
        return self.claim[state], self.end[state]


def exactly(codes: int, spec: CodeSpec) -> LengthPlan:
    """Images of so many codes.

    Raises:
        UserError: No image has that many.
    """
    reachable = _reachable(spec, max(codes, 0), exact=True)
    if not reachable[0, -1, 0]:
        # lengths from none to the longest: is there a mix of granularities with c codes?
        possible = _reachable(spec, spec.longest_length, exact=True)[0, -1].flip(0).nonzero()[:, 0].tolist()
        near = min(possible, key=lambda length: abs(length - codes))
        raise UserError(
            f"no image of {_regions(spec)} regions has exactly {codes} codes; lengths reach from {possible[0]} to "
            f"{possible[-1]}, the nearest is {near}"
        )
    return _of_reachable(reachable, spec)


def at_most(codes: int, spec: CodeSpec) -> LengthPlan:
    """Images of no more than so many codes.

    Raises:
        UserError: It is less than the coarsest granularity alone needs.
    """
    least = _regions(spec) * spec.codes_per_region[0]
    if codes < least:
        raise UserError(f"max_codes must be at least {least}, the codes of the coarsest granularity, not {codes}")
    return _of_reachable(_reachable(spec, min(codes, spec.longest_length), exact=False), spec)


def at_ratios(ratios: Mapping[int, float], spec: CodeSpec) -> LengthPlan:
    """Images with given shares of regions, met to the nearest whole region.

    Raises:
        UserError: The ratios are keyed by other factors than the spec's, or do not sum to 1.
    """
    checked = Ratios.of(ratios)
    if not set(checked.factors) <= set(spec.factors):
        raise UserError(f"ratios are keyed by the factors {list(spec.factors)}, not {list(checked.factors)}")
    shares = dict(zip(checked.factors, checked.shares, strict=True))
    # after granularity k, so many regions are still unclaimed: rounding sums keeps every count within one of its share
    left, total = [], 0.0
    for factor in spec.factors:
        total += shares.get(factor, 0.0)
        left.append(_regions(spec) - math.floor(total * _regions(spec) + 0.5))
    unclaimed = torch.arange(_regions(spec) + 1)[None, :, None]
    bounds = torch.tensor(left)[:, None, None]
    end = unclaimed == bounds
    end[-1] = False
    return LengthPlan(claim=unclaimed > bounds, end=end)


def _reachable(spec: CodeSpec, codes: int, exact: bool) -> Bool[Tensor, "_ r c"]:
    """Whether granularities k and finer can cover r regions once c codes are spent, with `codes` in all or, unless
    `exact`, fewer. At k = K only nothing can be covered."""
    regions = _regions(spec)
    reachable = torch.zeros(spec.granularities + 1, regions + 1, codes + 1, dtype=torch.bool)
    reachable[-1, 0] = True if not exact else torch.arange(codes + 1) == codes
    for granularity in reversed(range(spec.granularities)):
        cost = spec.codes_per_region[granularity]
        reachable[granularity] = reachable[granularity + 1]
        for region in range(1, regions + 1):
            # one region more of this granularity
            fewer = reachable[granularity, region - 1, cost:]
            reachable[granularity, region, : fewer.shape[0]] |= fewer
    return reachable


def _of_reachable(reachable: Bool[Tensor, "_ r c"], spec: CodeSpec) -> LengthPlan:
    claim = torch.zeros_like(reachable[:-1])
    for granularity, cost in enumerate(spec.codes_per_region):
        after = reachable[granularity, :-1]
        if reachable.shape[2] > 1:
            after = after[:, cost:]
        claim[granularity, 1:, : after.shape[1]] = after
    end = reachable[1:].clone()
    end[-1] = False
    return LengthPlan(claim, end)


def _regions(spec: CodeSpec) -> int:
    return spec.positions(0)
