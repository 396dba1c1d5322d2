"""What reads the texts on which a prior conditions images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.arguments import KeepsArguments


class TextEncoder(KeepsArguments, nn.Module, ABC):
    """Texts → a row of vectors for each. It draws its own fresh weights.

    One that was trained elsewhere gives vectors without gradient, and parameters that need none.
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """The width of the vectors."""

    @abstractmethod
    def forward(self, texts: Sequence[str]) -> tuple[Float[Tensor, "b s d"], Int[Tensor, " b"]]:
        """The vectors of texts, on the module's device, and how many of each row count: the first ones, at least one.

        No text depends on the others. Of a long one it may leave out the end.
        """
