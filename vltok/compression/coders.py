"""What turns codes into the sections of a file, and back.

Axis letters: h w grid of regions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from vltok.codes import Codes

#: The rows and columns of regions of a tile, or None where its codes lie on no grid.
Grid = tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class DecodedTile:
    """The codes of a tile, as far as sections hold them.

    Attributes:
        codes: A batch of one. Of a region that is not known, one code of the coarsest granularity that means nothing.
        known: Which regions are known; None where all are.
    """

    codes: Codes
    known: Bool[Tensor, "h w"] | None = None


class Coder(ABC):
    """Codes the tiles of a picture. Sections go from coarse to fine: the first ones say what the coarse picture is.

    Attributes:
        kind: By which a file names what it is.
        name: By which a file names the very one, in hexadecimal digits; empty where there is only one.
    """

    kind: int
    name: str

    @abstractmethod
    def encode(self, tiles: Sequence[Codes]) -> list[bytes]:
        """The sections of tiles, each a batch of one."""

    @abstractmethod
    def decode(self, sections: Sequence[bytes], grids: Sequence[Grid], rest: bytes = b"") -> list[DecodedTile]:
        """The tiles of sections, of which the last ones may be missing, but not the first.

        Args:
            sections: What `encode` gave, or the first ones of it.
            grids: Those of the tiles.
            rest: The beginning of the next section, which may stand for the first one where codes lie on no grid.

        Raises:
            UserError: They are no such sections.
        """

    @abstractmethod
    def check(self, tiles: Sequence[Codes]) -> bytes:
        """What shows that tiles were decoded as they were encoded, where a file's own checksum does not: two bytes, or
        none."""
