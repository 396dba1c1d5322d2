"""The losses of a tokenizer's training that are networks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from vltok.arguments import KeepsArguments


class Perceptual(KeepsArguments, nn.Module, ABC):
    """A distance between images as people see it. Its parameters are frozen."""

    @abstractmethod
    def load(self) -> None:
        """Get the weights, once, before the first use; building it, as reading a recipe does, must not need them.

        Raises:
            UserError: The weights are not to be had.
        """

    @abstractmethod
    def forward(self, reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, ""]:
        """The mean distance over the batch; 0 for equal images."""


class Discriminator(KeepsArguments, nn.Module, ABC):
    """Tells real images from reconstructions."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 _ _"]:
        """A logit for each patch: high for real ones."""
