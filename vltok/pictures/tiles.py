"""How a picture of any size is divided for a tokenizer: padded to what that takes, and in tiles where it is big."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vltok.interfaces import FixedSize, Tokenizer


@dataclass(frozen=True)
class Tiling:
    """The tiles of a padded picture: as few as can be, of about equal size, row by row.

    Attributes:
        height: Of the picture, in pixels.
        width: In pixels.
        unit: The height and the width that the sides of a tile are multiples of.
        most: The most units along a tile's side.
    """

    height: int
    width: int
    unit: tuple[int, int]
    most: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, height: int, width: int, tile: int) -> Tiling:
        """The tiles in which a tokenizer codes a picture.

        Args:
            tokenizer: Where it is `FixedSize`, every tile has the size that it takes.
            height: Of the picture, in pixels.
            width: In pixels.
            tile: The longest side of a tile in pixels, rounded up to what the tokenizer takes.
        """
        if isinstance(tokenizer, FixedSize):
            return cls(height, width, tokenizer.image_size, 1)
        return cls(height, width, (tokenizer.divisor, tokenizer.divisor), math.ceil(tile / tokenizer.divisor))

    @property
    def rows(self) -> list[slice]:
        """The lines of pixels of each row of tiles."""
        return self._divided(self.height, self.unit[0])

    @property
    def columns(self) -> list[slice]:
        """The same of each column."""
        return self._divided(self.width, self.unit[1])

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        return ((down, across) for down in self.rows for across in self.columns)

    def _divided(self, side: int, unit: int) -> list[slice]:
        units = math.ceil(side / unit)
        step = math.ceil(units / math.ceil(units / self.most)) * unit
        return [slice(start, min(start + step, units * unit)) for start in range(0, units * unit, step)]
