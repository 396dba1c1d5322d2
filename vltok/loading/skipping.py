"""Counting the pictures that cannot be read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from vltok.errors import UserError

# In a small set, so many corrupt pictures are borne whatever the share, but never more than a quarter of the set.
_FEW = 3


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be read, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class SkippedPicture:
    """A picture that could not be read.

    Attributes:
        index: Its place in the input.
        key: What the data module calls it.
        reason: What is wrong with it.
    """

    index: int
    key: str
    reason: str


class SkippedPictures:
    """Names each corrupt picture in a warning, once, and stops when there are too many.

    In sets of a few hundred pictures, where a single one is already a large share, up to three corrupt pictures (and
    at most a quarter of the set) are borne all the same, unless the share is 0.

    Args:
        max_corrupt: The share of pictures that may be corrupt.
        option: What the user sets the share by.

    Raises:
        UserError: The share lies outside 0 … 1.
    """

    def __init__(self, max_corrupt: float, option: str = "data.max_corrupt") -> None:
        if not 0 <= max_corrupt <= 1:
            raise UserError(f"{option} must lie between 0 and 1, not {max_corrupt}")
        self.max_corrupt = max_corrupt
        self._option = option
        self._reasons: dict[str, str] = {}

    @property
    def keys(self) -> list[str]:
        """The corrupt pictures so far, in the order in which they were met."""
        return list(self._reasons)

    def allowed(self, total: int) -> int:
        """How many of so many pictures may be corrupt."""
        share = math.floor(self.max_corrupt * total + 1e-9)
        return max(share, min(_FEW, total // 4)) if self.max_corrupt else 0

    def add(self, skipped: Iterable[Skipped | SkippedPicture], total: int) -> None:
        """Count pictures that could not be read.

        Args:
            skipped: The pictures; one that was counted before is not counted again.
            total: The number of pictures in the whole set.

        Raises:
            UserError: More pictures are corrupt than may be.
        """
        for picture in skipped:
            if picture.key not in self._reasons:
                self._reasons[picture.key] = picture.reason
                warnings.warn(f"skipped the corrupt picture {picture.key}: {picture.reason}", stacklevel=2)
        if len(self._reasons) > self.allowed(total):
            named = "; ".join(f"{key}: {reason}" for key, reason in list(self._reasons.items())[:3])
            raise UserError(
                f"{len(self._reasons)} or more of {total} pictures cannot be read, which is past {self._option} "
                f"{self.max_corrupt:g} ({named}): mend or remove them, or raise {self._option}"
            )
