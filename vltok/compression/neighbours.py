"""Codes and what lies beside them: which symbols an entropy coder knows before each code.

A symbol is a code of a granularity, a region of a finer granularity, whose codes come later, or what lies beyond the
edge. Codes of a granularity follow those of the coarser ones, row by row.

Axis letters: b image, h w grid of regions, H W cells of the finest grid, t code, k granularity, v vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Int

from vltok.codes import CodeSpec


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Codes of one granularity of a batch, and what lies beside each.

    Attributes:
        ids: Row by row, image by image.
        left: The symbol at the left of each.
        above: The symbol above each.
        image: The place of its image in the batch.
    """

    ids: Int[np.ndarray, " t"]
    left: Int[np.ndarray, " t"]
    above: Int[np.ndarray, " t"]
    image: Int[np.ndarray, " t"]

    @classmethod
    def joined(cls, parts: Sequence[Neighbours]) -> Neighbours:
        """Those of several batches, each of which counts its images anew."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))

    def of(self, which: Bool[np.ndarray, " t"]) -> Neighbours:
        """Some of them."""
        return Neighbours(*(getattr(self, each.name)[which] for each in fields(self)))


def symbols(spec: CodeSpec) -> int:
    """How many symbols there are: `granularity * v + id` for a code, then one for each granularity that comes later,
    then the one beyond the edge."""
    return spec.granularities * (spec.codebook_size + 1) + 1


def corners(
    grains: Int[np.ndarray, "b h w"], granularity: int, spec: CodeSpec
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """Image, row and column of the first cell of each code of a granularity, on the finest grid with an edge of one
    cell above and at the left."""
    side = spec.sides[granularity]
    cells = spec.sides[-1] // side
    image, row, column = np.nonzero((grains == granularity).repeat(side, 1).repeat(side, 2))
    return image, row * cells + 1, column * cells + 1


def lay(
    ids: Int[np.ndarray, " t *q"],
    code_map: Int[np.ndarray, "H W *q"],
    grains: Int[np.ndarray, "h w"],
    granularity: int,
    spec: CodeSpec,
) -> None:
    """Write the codes of a granularity, row by row, onto a code map."""
    _, rows, columns = corners(grains[None], granularity, spec)
    for down, across in itertools.product(range(spec.sides[-1] // spec.sides[granularity]), repeat=2):
        code_map[rows - 1 + down, columns - 1 + across] = ids


def known_before(
    code_map: Int[np.ndarray, "b H W"], grains: Int[np.ndarray, "b h w"], granularity: int, spec: CodeSpec
) -> Int[np.ndarray, "b H1 W1"]:
    """The symbols of all cells when codes of a granularity are coded, with an edge of one cell above and at the left.

    Args:
        code_map: Of the codes, which matters where they are of this granularity or of coarser ones.
        grains: Of the regions.
        granularity: Which one.
        spec: What the codes may be.
    """
    finest = grains.repeat(spec.sides[-1], 1).repeat(spec.sides[-1], 2)
    later = spec.granularities * spec.codebook_size + finest
    images, height, width = finest.shape
    found = np.full((images, height + 1, width + 1), symbols(spec) - 1, dtype=np.int32)
    found[:, 1:, 1:] = np.where(finest <= granularity, finest * spec.codebook_size + code_map, later)
    return found


def neighbours(
    code_map: Int[np.ndarray, "b H W"], grains: Int[np.ndarray, "b h w"], granularity: int, spec: CodeSpec
) -> Neighbours:
    """The codes of a granularity, and what lies beside them; see `known_before`."""
    known = known_before(code_map, grains, granularity, spec)
    image, row, column = corners(grains, granularity, spec)
    ids = known[image, row, column] - granularity * spec.codebook_size
    return Neighbours(ids, known[image, row, column - 1], known[image, row - 1, column], image)
