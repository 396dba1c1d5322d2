"""Control of the code length in sampling: which choices leave a length that was asked for within reach.

A region counts with all its codes as soon as it is claimed. A plan says of every state of an image which choices may be
taken; drawing among those meets the length exactly. What the choices are depends on the order in which codes are drawn.

Axis letters: b image, k granularity, r regions that are left (0 … all), c codes spent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vltok.codes import CodeSpec, Ratios
from vltok.drawing.config import VariableLengthSampling
from vltok.errors import UserError


@dataclass(frozen=True, eq=False)
class CoarseToFinePlan:
    """What may be done where granularity follows granularity: claim a region for the one at hand, or end it.

    Attributes:
        claim: Whether a region may be claimed, `[k r c]`.
        end: Whether the granularity may end, `[k r c]`; never the finest, which takes what is left.
    """

    claim: Bool[Tensor, "k r c"]
    end: Bool[Tensor, "k r c"]

    @classmethod
    def of(cls, sampling: VariableLengthSampling, spec: CodeSpec) -> CoarseToFinePlan:
        """The plan that a sampling configuration asks for.

        Raises:
            UserError: No image can have such a length.
        """
        if sampling.ratios is not None:
            counts = region_counts(sampling.ratios, spec)
            # after granularity k, so many regions are left
            bounds = _regions(spec) - torch.tensor(counts).cumsum(0)[:, None, None]
            left = torch.arange(_regions(spec) + 1)[None, :, None]
            claim, end = left > bounds, left == bounds
        else:
            reachable = reachable_lengths(sampling, spec)
            claim = torch.stack([_after(reachable[k], cost) for k, cost in enumerate(spec.codes_per_region)])
            end = reachable[1:].clone()
        end[-1] = False
        return cls(claim, end)

    def to(self, device: torch.device) -> CoarseToFinePlan:
        """The same plan on a device."""
        return CoarseToFinePlan(self.claim.to(device), self.end.to(device))

    def choices(
        self, granularity: Int[Tensor, " b"], left: Int[Tensor, " b"], spent: Int[Tensor, " b"]
    ) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
        """Whether each image may claim a region, and end its granularity."""
        # plans that do not depend on the codes spent have an axis of one
        state = granularity, left, spent.clamp(max=self.claim.shape[2] - 1)
        return self.claim[state], self.end[state]


@dataclass(frozen=True, eq=False)
class RasterPlan:
    """What may be done where region follows region: give the next one a granularity.

    Attributes:
        allowed: Whether a granularity leaves the length within reach, `[k r c]`.
        most: The most regions of each granularity, `[k]`.
        costs: The codes of a region of each granularity, `[k]`.
    """

    allowed: Bool[Tensor, "k r c"]
    most: Int[Tensor, " k"]
    costs: Int[Tensor, " k"]

    @classmethod
    def of(cls, sampling: VariableLengthSampling, spec: CodeSpec, device: torch.device) -> RasterPlan:
        """The plan that a sampling configuration asks for, on a device.

        Raises:
            UserError: No image can have such a length.
        """
        most = [_regions(spec)] * spec.granularities
        if sampling.ratios is not None:
            most = region_counts(sampling.ratios, spec)
        # what all granularities together can reach
        reachable = reachable_lengths(sampling, spec)[0]
        allowed = torch.stack([_after(reachable, cost) for cost in spec.codes_per_region])
        costs = torch.tensor(spec.codes_per_region)
        return cls(allowed.to(device), torch.tensor(most, device=device), costs.to(device))

    def choices(self, counts: Int[Tensor, "b k"]) -> Bool[Tensor, "b k"]:
        """Which granularities the next region of each image may have, after so many regions of each."""
        left = self.allowed.shape[1] - 1 - counts.sum(1)
        spent = (counts * self.costs).sum(1).clamp(max=self.allowed.shape[2] - 1)
        return self.allowed[:, left, spent].T & (counts < self.most)


def reachable_lengths(sampling: VariableLengthSampling, spec: CodeSpec) -> Bool[Tensor, "_ r c"]:
    """Whether granularities k and finer can give r regions the length that is asked for, once c codes are spent.

    At k = K no region can be covered. The last axis is one where any length will do.

    Raises:
        UserError: No image can have such a length.
    """
    if sampling.codes is not None:
        return exactly(sampling.codes, spec)
    if sampling.max_codes is not None:
        return at_most(sampling.max_codes, spec)
    return torch.ones(spec.granularities + 1, _regions(spec) + 1, 1, dtype=torch.bool)


def exactly(codes: int, spec: CodeSpec) -> Bool[Tensor, "_ r c"]:
    """Reachability of exactly so many codes.

    Raises:
        UserError: No image has that many.
    """
    # what is beyond the longest has no table of its own: it would be as large as the number
    reachable = _reachable(spec, min(max(codes, 0), spec.longest_length), exact=True)
    if not 0 <= codes <= spec.longest_length or not reachable[0, -1, 0]:
        # lengths from none to the longest: is there a mix of granularities with c codes?
        possible = _reachable(spec, spec.longest_length, exact=True)[0, -1].flip(0).nonzero()[:, 0].tolist()
        near = min(possible, key=lambda length: abs(length - codes))
        raise UserError(
            f"no image of {_regions(spec)} regions has exactly {codes} codes; lengths reach from {possible[0]} to "
            f"{possible[-1]}, the nearest is {near}"
        )
    return reachable


def at_most(codes: int, spec: CodeSpec) -> Bool[Tensor, "_ r c"]:
    """Reachability of no more than so many codes.

    Raises:
        UserError: It is less than the coarsest granularity alone needs.
    """
    least = _regions(spec) * spec.codes_per_region[0]
    if codes < least:
        raise UserError(f"max_codes must be at least {least}, the codes of the coarsest granularity, not {codes}")
    return _reachable(spec, min(codes, spec.longest_length), exact=False)


def sequence_lengths(sampling: VariableLengthSampling, longest: int) -> Bool[Tensor, " n"]:
    """Which lengths, from 1 on, a sequence on no grid may have.

    Raises:
        UserError: No sequence can have such a length.
    """
    if sampling.ratios is not None:
        raise UserError(f"ratios is {sampling.ratios}, but codes on no grid have no regions: give codes or max_codes")
    least, most = 1, longest
    if sampling.codes is not None:
        least = most = sampling.codes
    elif sampling.max_codes is not None:
        most = sampling.max_codes
    if most < 1 or least > longest:
        name = "max_codes" if sampling.codes is None else "codes"
        raise UserError(f"{name} is {most}, but sequences have from 1 to {longest} codes")
    # what is beyond the longest may be more than a tensor of numbers is compared with
    lengths = torch.arange(1, longest + 1)
    return (lengths >= least) & (lengths <= min(most, longest))


def region_counts(ratios: Mapping[int, float], spec: CodeSpec) -> list[int]:
    """How many regions each granularity gets, for given shares, each within one region of its share.

    Raises:
        UserError: The ratios are keyed by other factors than the spec's, or do not sum to 1.
    """
    checked = Ratios.of(ratios)
    if not set(checked.factors) <= set(spec.factors):
        raise UserError(f"ratios are keyed by the factors {list(spec.factors)}, not {list(checked.factors)}")
    shares = dict(zip(checked.factors, checked.shares, strict=True))
    # rounding the sums, not the shares, lets the counts sum up to all regions
    total, covered = 0.0, [0]
    for factor in spec.factors:
        total += shares.get(factor, 0.0)
        covered.append(math.floor(total * _regions(spec) + 0.5))
    return [after - before for before, after in itertools.pairwise(covered)]


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


def _after(reachable: Bool[Tensor, "r c"], cost: int) -> Bool[Tensor, "r c"]:
    """Whether a state is reachable after one region more of so many codes."""
    after = torch.zeros_like(reachable)
    left = reachable[:-1]
    if reachable.shape[1] > 1:
        left = left[:, cost:]
    after[1:, : left.shape[1]] = left
    return after


def _regions(spec: CodeSpec) -> int:
    return spec.positions(0)
