"""What a gate is, and what only some gates can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.arguments import KeepsArguments
from vltok.codes import Ratios


@dataclass(frozen=True, eq=False)
class GateDecision:
    """Which granularity each region gets.

    Attributes:
        grains: The grain map, `[b h w]`, counted from coarse to fine: 0 is the coarsest granularity, K − 1 the finest.
        assignment: One-hot in value, `[b k h w]`; through it the budget reaches the gate. Without a gradient where
            nothing is learned.
        weights: One-hot in value, `[b k h w]`; multiplies the features of each granularity before they are added, so
            that its gradient says what the reconstruction teaches the gate.
        logits: The scores that were compared, `[b k h w]`, or None where there are none.
        step_scores: For each step to the next finer granularity, what it gains for a code, comparable between regions
            and images; None to take the logits for it, or where regions are not ranked.
    """

    grains: Int[Tensor, "b h w"]
    assignment: Float[Tensor, "b k h w"]
    weights: Float[Tensor, "b k h w"]
    logits: Float[Tensor, "b k h w"] | None = None
    step_scores: Float[Tensor, "b n h w"] | None = None

    @classmethod
    def hard(
        cls,
        grains: Int[Tensor, "b h w"],
        granularities: int,
        logits: Float[Tensor, "b k h w"] | None = None,
        step_scores: Float[Tensor, "b n h w"] | None = None,
    ) -> GateDecision:
        """A decision without a gradient, from the grain map."""
        every = torch.arange(granularities, device=grains.device)[:, None, None]
        one_hot = (grains[:, None] == every).float()
        return cls(grains, one_hot, one_hot, logits, step_scores)


class Gate(KeepsArguments, nn.Module, ABC):
    """Chooses a granularity for each region (the Dynamic Grained Coding module, section 3.2)."""

    @property
    @abstractmethod
    def granularities(self) -> int:
        """The number of granularities between which it chooses, K."""

    @property
    @abstractmethod
    def ratios(self) -> Ratios | None:
        """The shares that the gate itself is asked to keep, or None where a budget does that."""

    @abstractmethod
    def forward(self, features: Sequence[Float[Tensor, "b c _ _"]], images: Float[Tensor, "b 3 H W"]) -> GateDecision:
        """The decision for each region, from feature maps (coarse to fine) and the images."""


class Constant(ABC):
    """A gate that gives every region the same granularity, whatever the images."""

    @property
    @abstractmethod
    def granularity(self) -> int:
        """Which, counted from 0, the coarsest."""


class Calibrated(ABC):
    """A part that measures something on training images before training starts, and keeps it as part of the model."""

    @property
    @abstractmethod
    def calibrated(self) -> bool:
        """Whether it has been calibrated (or its values were loaded)."""

    @abstractmethod
    def calibrate(self, batches: Iterable[Float[Tensor, "_ 3 _ _"]]) -> None:
        """Measure on batches of training images."""


class Taught(ABC):
    """A gate that learns from what its choices would cost, which the tokenizer measures by decoding alternatives."""

    @property
    @abstractmethod
    def taught_share(self) -> float:
        """The share of the images of each training batch of which alternatives are decoded, in (0, 1]."""

    @abstractmethod
    def lessons(self, grains: Int[Tensor, "b h w"]) -> Int[Tensor, "n b h w"]:
        """The grain maps at which those images are to be decoded, given what was chosen for them."""

    @abstractmethod
    def teach(
        self,
        features: Sequence[Float[Tensor, "b c _ _"]],
        grains: Int[Tensor, "n b h w"],
        errors: Float[Tensor, "n b h w"],
    ) -> Float[Tensor, ""]:
        """The loss of what the gate expects of those images, given what was measured.

        Args:
            features: The images' feature maps, from coarse to fine.
            grains: Its lessons.
            errors: The squared error of each region at each of them, summed over its pixels and channels.
        """


class Foreseeing(ABC):
    """A gate that learns to tell the codes that images would have, were all regions of the finest granularity."""

    @property
    @abstractmethod
    def codebook_size(self) -> int:
        """The number of codes between which it tells, v; a tokenizer checks that its quantizer has as many."""

    @abstractmethod
    def foresee(self, features: Sequence[Float[Tensor, "b c _ _"]], codes: Int[Tensor, "b H W"]) -> Float[Tensor, ""]:
        """The loss of what the gate expects of images; in training that of all processes (`batch_mean`).

        Args:
            features: The images' feature maps, from coarse to fine.
            codes: Their codes at the finest granularity, which lie on the finest grid.
        """
