"""Pictures to look at, with what was made of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from vltok.codes import Codes


@dataclass(frozen=True, eq=False)
class Example:
    """A picture to look at.

    Attributes:
        key: What its source calls it, or the number of a drawn one.
        image: The picture; None where it was drawn.
        result: What was decoded: its reconstruction, or what was drawn.
        codes: Its codes, a batch of one; None for a codec.
        figures: What was measured on it.
        fixed: What a code of fixed length made of it, where there is one to compare with.
    """

    key: str
    image: UInt8[Tensor, "3 H W"] | None
    result: UInt8[Tensor, "3 H W"]
    codes: Codes | None
    figures: Mapping[str, float]
    fixed: UInt8[Tensor, "3 H W"] | None = None
