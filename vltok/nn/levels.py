"""The resolutions that a VQGAN trunk passes through."""

from collections.abc import Sequence
from dataclasses import dataclass

from vltok.errors import UserError


@dataclass(frozen=True)
class Level:
    """One resolution of a trunk.

    Attributes:
        factor: How many pixels a cell has along a side; a power of two.
        channels: Width of the feature map.
        attention: Whether attention follows its residual blocks.
    """

    factor: int
    channels: int
    attention: bool


def plan_levels(
    largest_factor: int, width: int, multipliers: Sequence[int], attention_factors: Sequence[int]
) -> tuple[Level, ...]:
    """The levels of factor 1, 2, 4, … up to the largest one.

    Args:
        largest_factor: The factor of the last level; a power of two.
        width: Base number of channels.
        multipliers: The channels of each level, in units of `width`.
        attention_factors: The factors of the levels that have attention.

    Raises:
        UserError: The largest factor is no power of two, the number of multipliers does not fit it, or attention is
            asked for at a level that does not exist.
    """
    if largest_factor < 1 or largest_factor & (largest_factor - 1):
        raise UserError(f"a VQGAN trunk halves the sides: factor {largest_factor} is no power of two")
    count = largest_factor.bit_length()
    if len(multipliers) != count:
        raise UserError(
            f"multipliers {list(multipliers)} has {len(multipliers)} entries, but factor {largest_factor} takes "
            f"{count}, one for each of the factors {[2**level for level in range(count)]}"
        )
    if width < 1 or min(multipliers) < 1:
        raise UserError(f"width and multipliers must be at least 1, not {width} and {list(multipliers)}")
    absent = sorted(set(attention_factors) - {2**level for level in range(count)})
    if absent:
        raise UserError(
            f"attention_factors names {absent}, but the levels have the factors "
            f"{[2**level for level in range(count)]}; write [] for no attention"
        )
    return tuple(
        Level(2**level, width * multiplier, 2**level in attention_factors)
        for level, multiplier in enumerate(multipliers)
    )
