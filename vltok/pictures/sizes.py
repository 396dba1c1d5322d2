"""The sizes that pictures are cropped to: squares, or each picture to the one nearest its own shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from vltok.errors import UserError, whole_number
from vltok.loading.checks import check_at_least

#: A height and a width in pixels.
Size = tuple[int, int]
#: What users give: the side of a square, or sizes.
GivenSize = int | Sequence[Size]


@dataclass(frozen=True)
class Sizes:
    """Sizes of crops, and how many crops of each make a batch.

    Attributes:
        sizes: Each height and width in pixels.
        batch_sizes: The images of a batch of each: about as many pixels for all.
    """

    sizes: tuple[Size, ...]
    batch_sizes: tuple[int, ...]

    @classmethod
    def of(cls, size: GivenSize, batch_size: int) -> Sizes:
        """What a user asks for.

        Args:
            size: The side of a square, or several sizes.
            batch_size: Images of a batch of the first size; others have as many as have no more pixels, at least one.

        Raises:
            UserError: A side below 1, no sizes, or one that stands there twice.
        """
        if isinstance(size, int):
            check_at_least("size", size, 1)
            size = [(size, size)]
        given: list[Any] = [each if isinstance(each, str) else _sides(each) for each in size]
        if not given or any(isinstance(each, str) or len(each) != 2 or min(each) < 1 for each in given):
            raise UserError(
                "data.size must be the side of a square, or sizes of a height and a width of at least 1 pixel, such as "
                f"[[64, 64], [48, 80]], not {given}"
            )
        sizes = tuple((height, width) for height, width in given)
        twice = next((each for place, each in enumerate(sizes) if each in sizes[:place]), None)
        if twice is not None:
            raise UserError(f"data.size names {in_words(twice)} twice: name it once")
        pixels = batch_size * sizes[0][0] * sizes[0][1]
        return cls(sizes, tuple(max(pixels // (height * width), 1) for height, width in sizes))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def largest(self) -> int:
        """The longest side of any."""
        return max(map(max, self.sizes))

    def nearest(self, shapes: Int64[np.ndarray, "n 2"], filling: bool = False) -> Int64[np.ndarray, " n"]:
        """Which size each picture of some height and width is cropped to: that of the nearest aspect ratio.

        Of several sizes of one aspect ratio, it is the largest that no picture is enlarged for, else the smallest.

        Args:
            shapes: The pictures' heights and widths.
            filling: Leave out sizes whose pictures would not fill a batch; they go to the next nearest.
        """
        left = np.ones(len(self), dtype=bool)
        while True:
            chosen = self._nearest(shapes, left)
            counts = np.bincount(chosen, minlength=len(self))
            few = left & (counts < self.batch_sizes)
            if not filling or not few.any() or left.sum() == 1:
                return chosen
            left[np.where(few, counts, len(shapes) + 1).argmin()] = False

    def _nearest(self, shapes: Int64[np.ndarray, "n 2"], left: np.ndarray) -> Int64[np.ndarray, " n"]:
        sizes = np.array(self.sizes)
        ratios, own = (np.log(each[:, 0] / each[:, 1]) for each in (sizes, shapes))
        apart = np.where(left, np.abs(own[:, None] - ratios).round(9), np.inf)
        enlarged = (shapes[:, None] < sizes).any(axis=2)
        area = sizes.prod(axis=1) / sizes.prod(axis=1).sum()
        order = np.where(enlarged, 1 + area, -area)
        return np.where(apart == apart.min(axis=1, keepdims=True), order, np.inf).argmin(axis=1)


def _sides(size: object) -> list[int]:
    sides = list(size) if isinstance(size, Sequence) else [size]
    return [whole_number("a side in data.size", side) for side in sides]


def crops_in_words(size: GivenSize) -> str:
    """How pictures are cropped, as descriptions of data tell it."""
    if isinstance(size, int):
        return "shorter side resized to the size, random square for training, the middle otherwise"
    return "resized to cover the size of the nearest aspect ratio, a random part for training, the middle otherwise"


def in_words(size: Size) -> str:
    """``48 × 80``: height and width."""
    return f"{size[0]} × {size[1]}"
