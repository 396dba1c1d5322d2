"""Budgets whose multipliers are learned until the target holds: over a training batch, not for each image.

Simple images may spend fewer codes and complex ones more. Axis letters: b image, k granularity, h w grid of regions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vltok.codes import CodeSpec, Ratios
from vltok.errors import UserError
from vltok.interfaces import Budget
from vltok_lagrangian_budget.multipliers import Multipliers


class LagrangianRatioBudget(Budget):
    """Holds the share of regions of each granularity at a target, by one multiplier for each but the coarsest.

    Args:
        ratios: Target share of regions of each factor, summing to 1, such as ``{8: 0.5, 16: 0.5}``.
        weight: The weight of the squared gaps between shares and targets, λ.
        rate: The share of the pull 2λ·gap by which the multipliers grow each training step, in (0, 1].

    Raises:
        UserError: Ratios that do not sum to 1, a weight that is not positive, or a rate outside (0, 1].
    """

    def __init__(self, ratios: dict[int, float], weight: float = 1.0, rate: float = 0.01) -> None:
        super().__init__()
        self._ratios = Ratios.of(ratios)
        self.multipliers = Multipliers(len(self._ratios.factors) - 1, weight, rate)
        self.register_buffer("_targets", torch.tensor(self._ratios.shares), persistent=False)

    @property
    def factors(self) -> tuple[int, ...]:
        return self._ratios.factors

    @property
    def ratios(self) -> Ratios:
        return self._ratios

    def expected_length(self, regions: int) -> float:
        return regions * self._ratios.codes_per_region

    def forward(self, assignment: Float[Tensor, "b k h w"]) -> Float[Tensor, ""]:
        """The loss of a decision; in training mode the multipliers then grow.

        Raises:
            UserError: The decision is among another number of granularities.
        """
        _check_granularities(assignment, self.factors)
        # the share of the coarsest granularity follows from the others
        return self.multipliers((assignment.mean(dim=(2, 3)) - self._targets)[:, 1:])


class LagrangianCodeLengthBudget(Budget):
    """Holds the mean number of codes of an image at a target, however the granularities share them.

    Its one gap is how far the length is off, in units of what lengths can span for that picture size (all regions
    coarsest to all finest).

    Args:
        length: Target number of codes of an image, at the picture size of training.
        factors: The tokenizer's factors.
        weight: The weight of the squared gap, λ.
        rate: The share of the pull 2λ·gap by which the multiplier grows each training step, in (0, 1].

    Raises:
        UserError: Factors that do not divide each other, a weight that is not positive, or a rate outside (0, 1].
    """

    def __init__(self, length: float, factors: list[int], weight: float = 1.0, rate: float = 0.01) -> None:
        super().__init__()
        spec = CodeSpec(codebook_size=1, factors=tuple(factors))
        if not spec.gridded:
            raise UserError("budget.factors names no factor; give the encoder's")
        self.length = length
        self.multipliers = Multipliers(1, weight, rate)
        self._factors = spec.factors
        self._codes = spec.codes_per_region
        self.register_buffer("_lengths", torch.tensor(self._codes, dtype=torch.float32), persistent=False)

    @property
    def factors(self) -> tuple[int, ...]:
        return self._factors

    @property
    def ratios(self) -> None:
        return None

    def expected_length(self, regions: int) -> float:
        """The target length.

        Raises:
            UserError: Images of so many regions cannot have it.
        """
        shortest, longest = regions * self._codes[0], regions * self._codes[-1]
        if not shortest <= self.length <= longest:
            raise UserError(
                f"budget.length is {self.length:g}, but images of {regions} regions of {self._factors[0]}² pixels have "
                f"{shortest} to {longest} codes; choose a length in between, or another picture size"
            )
        return self.length

    def forward(self, assignment: Float[Tensor, "b k h w"]) -> Float[Tensor, ""]:
        """The loss of a decision; in training mode the multiplier then grows.

        Raises:
            UserError: The decision is among another number of granularities, or images of this size cannot have the
                length.
        """
        _check_granularities(assignment, self._factors)
        regions = assignment.shape[2] * assignment.shape[3]
        target = self.expected_length(regions)
        span = max(regions * (self._codes[-1] - self._codes[0]), 1)  # 0 for K = 1, where the length is off by nothing
        lengths = (assignment.float().sum(dim=(2, 3)) * self._lengths).sum(dim=1)
        return self.multipliers((lengths - target)[:, None] / span)


def _check_granularities(assignment: Tensor, factors: tuple[int, ...]) -> None:
    if assignment.shape[1] != len(factors):
        raise UserError(f"the budget is for factors {list(factors)}, but the gate decides among {assignment.shape[1]}")
