"""Budgets: losses that keep the use of codes near what was asked for. They reach the gate through its decision's
`assignment`."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vltok.codes import CodeSpec, Ratios
from vltok.errors import UserError
from vltok.interfaces import Budget
from vltok.processes import batch_mean


class RatioBudget(Budget):
    """Drives the share of regions of each granularity to a target: λ Σ_k (r_k − r'_k)², eq. (7).

    The sum is over the first K − 1 factors of F, the paper's ascending set: all but the coarsest, whose share follows.

    Args:
        ratios: Target share of regions of each factor, summing to 1, such as ``{8: 0.5, 16: 0.5}``.
        weight: The loss's weight, λ.
        over: Whether each image is held to the ratios (``image``: the mean of the images' losses), or only the batch
            as a whole (``batch``: simple images may then spend fewer codes and complex ones more). In training the
            batch is that of all processes together.

    Raises:
        UserError: Ratios that do not sum to 1, or a negative weight.
    """

    _targets: Tensor

    def __init__(
        self, ratios: dict[int, float], weight: float = 10.0, over: Literal["image", "batch"] = "image"
    ) -> None:
        super().__init__()
        _check_weight(weight)
        self._ratios = Ratios.of(ratios)
        self.weight = weight
        self.over = over
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
        _check_granularities(assignment, self.factors)
        shares = assignment.mean(dim=(2, 3))
        if self.over == "batch":
            shares = batch_mean(shares, together=self.training)
        losses = (self._targets - shares)[..., 1:].square().sum(dim=-1)
        return self.weight * (losses if self.over == "batch" else batch_mean(losses, together=self.training))


class CodeLengthBudget(Budget):
    """Drives the mean number of codes of an image to a target, however the granularities share them.

    The loss is the square of how far the length is off, in units of what lengths can span for that picture size (all
    regions coarsest to all finest). For two granularities it equals `RatioBudget`'s.

    Args:
        length: Target number of codes of an image, at the picture size of training.
        factors: The tokenizer's factors.
        weight: The loss's weight, λ.
        over: Whether each image is held to the length (``image``), or only the mean of the batch (``batch``), which in
            training is that of all processes together.

    Raises:
        UserError: Factors that do not divide each other, or a negative weight.
    """

    _lengths: Tensor

    def __init__(
        self, length: float, factors: list[int], weight: float = 10.0, over: Literal["image", "batch"] = "image"
    ) -> None:
        super().__init__()
        _check_weight(weight)
        spec = CodeSpec(codebook_size=1, factors=tuple(factors))
        if not spec.gridded:
            raise UserError("budget.factors names no factor; give the encoder's")
        self.length = length
        self.weight = weight
        self.over = over
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
        _check_granularities(assignment, self._factors)
        regions = assignment.shape[2] * assignment.shape[3]
        target = self.expected_length(regions)
        # no matrix product: under autocast it would round to bfloat16, and 640 codes to a multiple of 4
        lengths = (assignment.sum(dim=(2, 3)) * self._lengths).sum(dim=1)
        if self.over == "batch":
            lengths = batch_mean(lengths, together=self.training)
        span = max(regions * (self._codes[-1] - self._codes[0]), 1)  # 0 for K = 1, where the length is off by nothing
        losses = ((lengths - target) / span).square()
        return self.weight * (losses if self.over == "batch" else batch_mean(losses, together=self.training))


def _check_weight(weight: float) -> None:
    if weight < 0:
        raise UserError(f"budget.weight must be at least 0, not {weight}")


def _check_granularities(assignment: Tensor, factors: tuple[int, ...]) -> None:
    if assignment.shape[1] != len(factors):
        raise UserError(f"the budget is for factors {list(factors)}, but the gate decides among {assignment.shape[1]}")
