"""Tokenizers whose code length is chosen when they encode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from vltok.codes import Codes, Ratios


class Candidates(ABC):
    """What the images of a batch could be encoded to, from the fewest codes to the most.

    An image goes from one to the next by a step, which adds codes; all images have as many steps, ordered so that the
    first ones gain most.
    """

    @property
    @abstractmethod
    def own(self) -> Codes:
        """What the tokenizer chooses itself."""

    @property
    @abstractmethod
    def lengths(self) -> Int[Tensor, "b _"]:
        """The code length of each image after no step, one step, and so on; it rises."""

    @property
    @abstractmethod
    def scores(self) -> Float[Tensor, "b n"]:
        """What each step gains for a code. Along an image they never rise; between images they can be compared.

        Raises:
            UserError: The tokenizer ranks nothing.
        """

    @abstractmethod
    def after(self, steps: Int[Tensor, " b"]) -> Codes:
        """The codes of each image after so many steps."""

    @final
    def above(self, threshold: float) -> Codes:
        """The codes of each image after the steps that score more than a threshold."""
        return self.after((self.scores > threshold).sum(dim=1))

    @abstractmethod
    def within(self, most: Int[Tensor, " b"]) -> Codes:
        """The best codes of at most this number, as many as there can be; it is no less than after no step."""


class Proportioned(ABC):
    """Candidates whose codes have several granularities."""

    @abstractmethod
    def at(self, ratios: Ratios) -> Codes:
        """The best codes at these shares of granularities, met to the nearest whole region."""


class Steerable(ABC):
    """A tokenizer whose code length can be chosen when it encodes, whatever it was trained for (`vltok.rates.Rate`).

    Where its codes lie on no grid, steps add them at the end: any beginning of an image's codes is an image.
    """

    @abstractmethod
    def candidates(self, images: Float[Tensor, "b 3 H W"]) -> Candidates:
        """What images could be encoded to, as in evaluation and without gradient; nothing is updated.

        Raises:
            UserError: The images are of a size that the tokenizer does not take, or nothing can be chosen.
        """
