"""Of which size pictures are drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vltok.errors import UserError, whole_number
from vltok.interfaces import Prior


def regions_of(size: str | int | Sequence[int] | None, prior: Prior) -> tuple[int, int] | None:
    """The rows and columns of regions of pictures of a size; None where the prior draws those of its own alone.

    Args:
        size: Height and width in pixels, as in `48x80`, or one number for both.
        prior: The one that shall draw them.

    Raises:
        UserError: It is no such size, or none of which the prior draws pictures.
    """
    if size is None:
        return None
    if not prior.spec.gridded:
        raise UserError(
            f"--size {size}: the prior's codes lie on no grid, so that its pictures have one size: leave it out"
        )
    factor, own = prior.spec.factors[0], prior.spec.regions
    sides = _sides(size)
    if own is not None:
        height, width = (side * factor for side in own)
        if sides != (height, width):
            raise UserError(f"--size {_shown(sides)}: the prior draws pictures of {height}x{width} alone: leave it out")
        return None
    if any(side % factor for side in sides):
        near = [max(round(side / factor), 1) * factor for side in sides]
        raise UserError(
            f"--size {_shown(sides)}: height and width must be multiples of {factor}; the nearest is {_shown(near)}"
        )
    rows, columns = (side // factor for side in sides)
    return rows, columns


def _sides(size: str | int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, str):
        if not re.fullmatch(r"\d+(x\d+)?", size):
            raise UserError(f"--size must be height x width in pixels, as in 48x80, or one number, not '{size}'")
        size = [int(side) for side in size.split("x")]
    sides = [whole_number("--size", side, 1) for side in (size if isinstance(size, Sequence) else [size])]
    if len(sides) not in (1, 2):
        raise UserError(f"--size must be a height and a width, not {len(sides)} numbers")
    return sides[0], sides[-1]


def _shown(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
