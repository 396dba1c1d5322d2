"""Sequences from codes, and codes from sequences.

From coarse to fine (section 3.3, "Training sequence construction"), the content and the position track of each
granularity of an image are

```
content    ⟨sos⟩  code   code   …  ⟨eos⟩
position   ⟨sos⟩  place  place  …  ⟨eos⟩
```

where a place counts the cells of that granularity's position map row by row. The tracks of all granularities follow one
another, and so do those of all images: packed, without padding.

In raster order (supplementary 3.2) codes follow one another region by region, and row by row within a region, whatever
its granularity. There are no special tokens: an image ends where its last region is full.

Axis letters: b image, t token (packed over the batch), d model width, k granularity, n column of the widest sequence,
q id of a code (no axis where there is one codebook).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor, nn

from vltok.code_maps import first_id, for_each_id
from vltok.codes import Codes, CodeSpec
from vltok.nn.attention import Packing
from vltok.priors.layout import FREE, Layout

Order = Literal["row-first", "region-first"]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Packed token sequences.

    Attributes:
        contents: Codes and the content track's special tokens, `[t]`; where codes have several ids, `[t q]`.
        positions: Places in the token's own position map and the position track's special tokens, `[t]`.
        granularities: The granularity of each token, `[t]`.
        packing: Where images lie.
    """

    contents: Int[Tensor, " t *q"]
    positions: Int[Tensor, " t"]
    granularities: Int[Tensor, " t"]
    packing: Packing

    def shifted(self) -> tuple[Sequences, Sequences]:
        """What is read and what is predicted from it: all tokens but each image's last, and all but its first."""
        packing = self.packing
        shorter = Packing(packing.cu_seqlens.long().diff() - 1, [length - 1 for length in packing.lengths])
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

    # The columns of the widest sequence that could be: each granularity's ⟨sos⟩, all its places in order, ⟨eos⟩.
    column_place: Int[Tensor, " n"]
    column_position: Int[Tensor, " n"]
    column_granularity: Int[Tensor, " n"]
    column_starts: Bool[Tensor, " n"]
    column_ends: Bool[Tensor, " n"]

    def __init__(self, spec: CodeSpec, order: Order = "row-first") -> None:
        super().__init__()
        self.spec = spec
        self.layout = Layout(spec)
        places, columns = [], []
        offset = 0
        for granularity in range(spec.granularities):
            count = spec.positions(granularity)
            region = self.layout.region[offset : offset + count]
            walk = torch.arange(count) if order == "row-first" else region.argsort(stable=True)
            start, end = spec.position_start(granularity), spec.position_end(granularity)
            places.append(torch.cat([torch.tensor([0]), offset + walk, torch.tensor([0])]))
            columns.append(torch.cat([torch.tensor([start]), walk, torch.tensor([end])]))
            offset += count
        self._keep("column_place", places)
        self._keep("column_position", columns)
        self._keep("column_granularity", [torch.full_like(column, k) for k, column in enumerate(columns)])
        self._keep("column_starts", [torch.arange(len(column)) == 0 for column in columns])
        self._keep("column_ends", [torch.arange(len(column)) == len(column) - 1 for column in columns])

    @property
    def longest(self) -> int:
        """The most tokens that an image's sequence can have."""
        return self.spec.longest_length + 2 * self.spec.granularities

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
        contents = self.layout.lay(codes)
        taken = first_id(contents, self.spec) != FREE
        special = self.column_starts | self.column_ends
        present = taken[:, self.column_place] | special
        starts = torch.full((len(codes),), self.spec.content_start, device=codes.device)
        starts = starts if content_starts is None else content_starts
        at_start, at_end = (for_each_id(column, self.spec) for column in (self.column_starts, self.column_ends))
        contents = torch.where(at_start, for_each_id(starts[:, None], self.spec), contents[:, self.column_place])
        contents = torch.where(at_end, self.spec.content_end, contents)
        positions = self.column_position.expand_as(present)
        if position_start_offsets is not None:
            positions = positions + self.column_starts * position_start_offsets[:, None]
        special_tokens = 2 * self.spec.granularities
        known = [length + special_tokens for length in codes.on_host.lengths.tolist()]
        packing = Packing(codes.lengths.long() + special_tokens, known)
        chosen = _chosen(present, packing.total)
        return Sequences(
            contents.flatten(0, 1)[chosen],
            positions.flatten()[chosen],
            self.column_granularity.expand_as(present).flatten()[chosen],
            packing,
        )

    def codes(self, sequences: Sequences) -> Codes:
        """The codes of whole sequences, in whatever order each granularity's places stand."""
        code = first_id(sequences.contents, self.spec) < self.spec.codebook_size
        place = (self.layout.offsets[sequences.granularities] + sequences.positions)[code]
        laid = self.layout.empty(len(sequences.packing.lengths))
        return self.layout.collect(laid.index_put((sequences.packing.images[code], place), sequences.contents[code]))

    def choices(self, codes: Codes) -> list[int]:
        """What makes an image: positions and contents by turns, and ⟨eos⟩ of all granularities but the finest, whose
        positions follow from the others.

        Args:
            codes: A batch of one.

        Raises:
            UserError: The codes lie on no grid, or on one of another size than the spec's.
        """
        sequences = self(codes)
        finest = sequences.granularities == self.spec.granularities - 1
        first = first_id(sequences.contents, self.spec)
        code, ends = first < self.spec.codebook_size, first == self.spec.content_end
        return chosen_by_turns(sequences.positions, (code | ends) & ~finest, sequences.contents, code)

    def steps(self, codes: Codes) -> Int[Tensor, " t"]:
        """The place of each code among those of its image's sequence, without special tokens.

        Raises:
            UserError: The codes lie on no grid, or on one of another size than the spec's.
        """
        sequences = self(codes)
        code = first_id(sequences.contents, self.spec) < self.spec.codebook_size
        place = (self.layout.offsets[sequences.granularities] + sequences.positions)[code]
        return _steps(self.layout, place, Packing(codes.lengths.long()))

    def _keep(self, name: str, parts: list[Tensor]) -> None:
        self.register_buffer(name, torch.cat(parts), persistent=False)


@dataclass(frozen=True, eq=False)
class RasterSequences:
    """Packed codes in raster order of their regions.

    Attributes:
        contents: The codes, `[t]`; where they have several ids, `[t q]`.
        places: The place of each, as `Layout` counts them, `[t]`.
        packing: Where images lie.
    """

    contents: Int[Tensor, " t *q"]
    places: Int[Tensor, " t"]
    packing: Packing


class RasterOrder(nn.Module):
    """Turns codes into sequences in raster order of regions and back, for any number of granularities.

    Args:
        spec: What the codes may be; its grid of regions must be known.

    Raises:
        UserError: The spec has no factors or no grid of regions.
    """

    def __init__(self, spec: CodeSpec) -> None:
        super().__init__()
        self.layout = Layout(spec)

    def forward(self, codes: Codes) -> RasterSequences:
        """The sequences of codes.

        Raises:
            UserError: The codes lie on no grid, or on one of another size than the spec's.
        """
        walk = self.layout.of_region.flatten()
        contents = self.layout.lay(codes)[:, walk]
        packing = Packing(codes.lengths.long(), codes.on_host.lengths.tolist())
        taken = first_id(contents, self.layout.spec) != FREE
        chosen = _chosen(taken, packing.total)
        return RasterSequences(contents.flatten(0, 1)[chosen], walk.expand_as(taken).flatten()[chosen], packing)

    def codes(self, sequences: RasterSequences) -> Codes:
        """The codes of whole sequences."""
        laid = self.layout.empty(len(sequences.packing.lengths))
        return self.layout.collect(
            laid.index_put((sequences.packing.images, sequences.places), sequences.contents),
        )

    def steps(self, codes: Codes) -> Int[Tensor, " t"]:
        """The place of each code in its image's sequence.

        Raises:
            UserError: The codes lie on no grid, or on one of another size than the spec's.
        """
        sequences = self(codes)
        return _steps(self.layout, sequences.places, sequences.packing)


def _chosen(mask: Bool[Tensor, "b n"], count: int) -> Int[Tensor, " t"]:
    """Where a mask is true, row by row. The host knows how often, and so does not wait for the device."""
    return torch.searchsorted(mask.flatten().cumsum(0), torch.arange(1, count + 1, device=mask.device))


def _steps(layout: Layout, places: Int[Tensor, " t"], packing: Packing) -> Int[Tensor, " t"]:
    """The steps of a sequence's codes, in the order in which `Codes` holds them: that of their places."""
    laid = places.new_full((len(packing.lengths), layout.count), FREE)
    laid = laid.index_put((packing.images, places), packing.steps)
    return laid[laid != FREE]


def chosen_by_turns(
    structure: Int[Tensor, " t"],
    structured: Bool[Tensor, " t"],
    contents: Int[Tensor, " t *q"],
    code: Bool[Tensor, " t"],
) -> list[int]:
    """The choices that make the tokens of one image: what says where a code goes, then its ids.

    Args:
        structure: Where each token goes.
        structured: Which tokens have that chosen.
        contents: The ids of each token.
        code: Which tokens have these chosen.
    """
    ids = contents.view(len(contents), -1)
    choices = torch.cat([structure[:, None], ids], dim=1)
    return choices[torch.cat([structured[:, None], code[:, None].expand_as(ids)], dim=1)].tolist()


def preceding(
    values: Shaped[Tensor, "t *d"], starts: Shaped[Tensor, "b *d"], packing: Packing
) -> Shaped[Tensor, "t *d"]:
    """What stands before each token: the token before it, and its image's start before the first.

    Args:
        values: A track of packed sequences.
        starts: What each image starts with.
        packing: Where images lie.
    """
    first = (packing.steps == 0).view(-1, *[1] * (values.dim() - 1))
    return torch.where(first, starts[packing.images], values.roll(1, 0))
