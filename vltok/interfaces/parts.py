"""The parts of a tokenizer besides its gate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.arguments import KeepsArguments
from vltok.codes import Ratios


class Encoder(KeepsArguments, nn.Module, ABC):
    """Images → one feature map for each factor (the hierarchical encoder E_h, section 3.2)."""

    @property
    @abstractmethod
    def factors(self) -> tuple[int, ...]:
        """The downsampling factors of the feature maps, from coarse to fine."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """The width of every feature map."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c _ _"]]:
        """The feature maps, from coarse to fine; that of factor f is H/f × W/f."""


class Budget(KeepsArguments, nn.Module, ABC):
    """Keeps the use of codes near what was asked for."""

    @property
    @abstractmethod
    def factors(self) -> tuple[int, ...]:
        """The factors that it was made for, from coarse to fine; a tokenizer checks that its encoder has the same."""

    @property
    @abstractmethod
    def ratios(self) -> Ratios | None:
        """The shares that it asks for, or None where it asks for something else."""

    @abstractmethod
    def expected_length(self, regions: int) -> float:
        """The mean code length that it asks for, for images of so many regions."""

    @abstractmethod
    def forward(self, assignment: Float[Tensor, "b k h w"]) -> Float[Tensor, ""]:
        """The weighted loss of a decision's `assignment`; in training that of all processes (`batch_mean`).

        Raises:
            UserError: The assignment has another number of granularities than `factors`.
        """


@dataclass(frozen=True, eq=False)
class Quantized:
    """What a quantizer gives.

    Attributes:
        ids: The nearest code of each vector, `[b H W]`; where codes have several ids, `[b H W q]`.
        vectors: The codebook's vectors, `[b c H W]`, through which the gradient passes straight.
        loss: The quantization loss, a scalar; in training on several processes, this one's share of it.
    """

    ids: Int[Tensor, "b H W *q"]
    vectors: Float[Tensor, "b c H W"]
    loss: Float[Tensor, ""]


class Quantizer(KeepsArguments, nn.Module, ABC):
    """Vectors → codes of a codebook (eq. 1).

    Attributes:
        codebooks: How many ids a code has, q, each an entry of a codebook of its own.
    """

    codebooks: int = 1

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of codes, v; where codes have several ids, the number of entries that each is one of."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The width of a code's vector, n_z."""

    @abstractmethod
    def forward(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None = None) -> Quantized:
        """Quantize. A vector counts by its weight: one that stands n times has 1/n, so that each code counts once."""

    @abstractmethod
    def lookup(self, ids: Int[Tensor, "b H W *q"]) -> Float[Tensor, "b c H W"]:
        """The vectors of codes."""


class Decoder(KeepsArguments, nn.Module, ABC):
    """Vectors on the finest grid → images."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """The width of the vectors that it takes."""

    @property
    @abstractmethod
    def factor(self) -> int:
        """How many pixels a cell of the grid has along a side."""

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """The weight of the layer that gives the pixels."""

    @abstractmethod
    def forward(self, vectors: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 _ _"]:
        """The images."""
