"""Sequences from codes, and codes from sequences (section 3.3, "Training sequence construction").

Of each granularity, from coarse to fine, the content and the position track of an image are

```
content    ⟨sos⟩  code   code   …  ⟨eos⟩
position   ⟨sos⟩  place  place  …  ⟨eos⟩
```

where a place counts the cells of that granularity's position map row by row. The tracks of all granularities follow one
another, and so do those of all images: packed, without padding.

Axis letters: b image, t token (packed over the batch), p place of any granularity's position map (all granularities'
places one after another, from coarse to fine), r region, k granularity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.nn.attention import Packing

Order = Literal["row-first", "region-first"]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Packed token sequences.

    Attributes:
        contents: Codes and the content track's special tokens, `[t]`.
        positions: Places in the token's own position map and the position track's special tokens, `[t]`.
        granularities: The granularity of each token, `[t]`.
        packing: Where images lie.
    """

    contents: Int[Tensor, " t"]
    positions: Int[Tensor, " t"]
    granularities: Int[Tensor, " t"]
    packing: Packing

    def shifted(self) -> tuple[Sequences, Sequences]:
        """What is read and what is predicted from it: all tokens but each image's last, and all but its first."""
        packing = self.packing
        shorter = Packing(torch.tensor(packing.lengths, device=self.contents.device) - 1)
        # token t of the shorter packing is token t + (number of images before it) of this one
        read = torch.arange(shorter.total, device=self.contents.device) + shorter.images
        return self._at(read, shorter), self._at(read + 1, shorter)

    def _at(self, index: Tensor, packing: Packing) -> Sequences:
        return Sequences(self.contents[index], self.positions[index], self.granularities[index], packing)


class CoarseToFine(nn.Module):
    """Turns codes into sequences from coarse to fine and back, for any number of granularities.

    Args:
        spec: What the codes may be; its grid of regions must be known.
        order: Within a granularity, ``row-first`` walks row by row over the position map, ``region-first`` from region
            to region and row by row within each.

    Raises:
        UserError: The spec has no factors or no grid of regions.
    """

    # Where each place lies. Buffers move with the model but are no part of its state: they follow from the spec.
    place_granularity: Int[Tensor, " p"]
    place_region: Int[Tensor, " p"]
    place_offsets: Int[Tensor, " k"]
    # The columns of the widest sequence that could be: each granularity's ⟨sos⟩, all its places in order, ⟨eos⟩.
    column_place: Int[Tensor, " n"]
    column_position: Int[Tensor, " n"]
    column_granularity: Int[Tensor, " n"]
    column_starts: Bool[Tensor, " n"]
    column_ends: Bool[Tensor, " n"]

    def __init__(self, spec: CodeSpec, order: Order = "row-first") -> None:
        super().__init__()
        if not spec.gridded:
            raise UserError("a coarse-to-fine prior needs codes on a grid: give the tokenizer's factors")
        self.spec = spec
        regions, places, granularities, columns, offsets = [], [], [], [], []
        offset = 0
        for granularity in range(spec.granularities):
            count = spec.positions(granularity)
            region = _regions_of_places(spec, granularity)
            walk = torch.arange(count) if order == "row-first" else region.argsort(stable=True)
            start, end = spec.position_start(granularity), spec.position_end(granularity)
            regions.append(region)
            granularities.append(torch.full((count,), granularity))
            places.append(torch.cat([torch.tensor([0]), offset + walk, torch.tensor([0])]))
            columns.append(torch.cat([torch.tensor([start]), walk, torch.tensor([end])]))
            offsets.append(torch.tensor([offset]))
            offset += count
        self._keep("place_granularity", granularities)
        self._keep("place_region", regions)
        self._keep("place_offsets", offsets)
        self._keep("column_place", places)
        self._keep("column_position", columns)
        self._keep("column_granularity", [torch.full_like(column, k) for k, column in enumerate(columns)])
        self._keep("column_starts", [torch.arange(len(column)) == 0 for column in columns])
        self._keep("column_ends", [torch.arange(len(column)) == len(column) - 1 for column in columns])

    @property
    def longest(self) -> int:
        """The most tokens that an image's sequence can have."""
        return self.spec.longest_length + 2 * self.spec.granularities

    @property
    def places(self) -> int:
        """The number of places of all granularities."""
        return sum(self.spec.positions(granularity) for granularity in range(self.spec.granularities))

    def forward(
        self,
        codes: Codes,
        content_starts: Int[Tensor, " b"] | None = None,
        position_start_offsets: Int[Tensor, " b"] | None = None,
    ) -> Sequences:
        """The sequences of codes.

        Args:
            codes: The codes.
            content_starts: What stands for ⟨sos⟩ in each image's content track, such as its class; ⟨sos⟩ where None.
            position_start_offsets: Added to ⟨sos⟩ in each image's position tracks; 0 where None.

        Raises:
            UserError: The codes lie on no grid, or on one of another size than the spec's.
        """
        grains = codes.require_grains()
        if tuple(grains.shape[1:]) != self.spec.regions:
            raise UserError(
                f"these codes have grids of {grains.shape[1]} × {grains.shape[2]} regions, but the prior is built for "
                f"{self.spec.regions}: set its `regions` to the codes'"
            )
        taken = grains.flatten(1)[:, self.place_region] == self.place_granularity
        contents = torch.zeros_like(taken, dtype=torch.long).masked_scatter(taken, codes.ids.long())
        special = self.column_starts | self.column_ends
        present = taken[:, self.column_place] | special
        starts = torch.full((len(codes),), self.spec.content_start, device=codes.device)
        starts = starts if content_starts is None else content_starts
        contents = torch.where(self.column_starts, starts[:, None], contents[:, self.column_place])
        contents = torch.where(self.column_ends, self.spec.content_end, contents)
        positions = self.column_position.expand_as(present)
        if position_start_offsets is not None:
            positions = positions + self.column_starts * position_start_offsets[:, None]
        return Sequences(
            contents[present],
            positions[present],
            self.column_granularity.expand_as(present)[present],
            Packing(present.sum(1)),
        )

    def codes(self, sequences: Sequences) -> Codes:
        """The codes of whole sequences, in whatever order each granularity's places stand."""
        code = sequences.contents < self.spec.codebook_size
        place = (self.place_offsets[sequences.granularities] + sequences.positions)[code]
        index = sequences.packing.images[code], place
        contents = place.new_zeros(len(sequences.packing.lengths), self.places)
        taken = torch.zeros_like(contents, dtype=torch.bool)
        return self.codes_at(
            contents.index_put(index, sequences.contents[code]),
            taken.index_put(index, torch.ones_like(place, dtype=torch.bool)),
        )

    def codes_at(self, contents: Int[Tensor, "b p"], taken: Bool[Tensor, "b p"]) -> Codes:
        """The codes that stand at the taken places; every region must be covered by exactly one granularity."""
        regions = math.prod(self.spec.regions)
        grains = contents.new_zeros(len(contents), regions).scatter_reduce(
            1, self.place_region.expand_as(taken), self.place_granularity * taken, "amax"
        )
        return Codes(contents[taken], taken.sum(1), grains.unflatten(1, self.spec.regions))

    def _keep(self, name: str, parts: list[Tensor]) -> None:
        self.register_buffer(name, torch.cat(parts), persistent=False)


def _regions_of_places(spec: CodeSpec, granularity: int) -> Int[Tensor, " n"]:
    """The region in which each place of a position map lies, counted row by row."""
    height, width = spec.regions
    side = spec.sides[granularity]
    rows = torch.arange(height * side) // side
    columns = torch.arange(width * side) // side
    return (rows[:, None] * width + columns).flatten()
