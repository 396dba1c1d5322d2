"""Codes under tables: a section for each granularity, the grain map at the beginning of the first.

Codes that lie on no grid have one section: how many each tile has, the first code of every tile, the second ones, and
so on, so that any beginning of it is a beginning of every tile.

Pictures may be unlike those that tables were measured on. So before codes stands how much they follow the tables, from
wholly to not at all, whichever takes the fewest bits: codes never take more than at equal frequencies, but for 2 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.compression.coders import Coder, DecodedTile, Grid
from vltok.compression.coding import Alphabet, CutDecoder, Decoder, Encoder
from vltok.compression.file_format import EQUAL, NAME_BYTES, TABLES, Header, file_size
from vltok.compression.frequencies import TOTAL, quantized
from vltok.compression.tables import CodeTables, neighbourhood, neighbourhoods
from vltok.errors import UserError

#: The shares of the tables in the frequencies that codes are given; the rest is equal.
_SHARES = (1.0, 0.75, 0.375, 0.0)


class _Blends:
    """The codes of one granularity, of which some follow the table more than others.

    Args:
        table: How often each code occurs.
        shares: Of the table in each blend.
    """

    def __init__(self, table: Int[np.ndarray, " v"], shares: Sequence[float]) -> None:
        rows = np.stack([quantized(share * table + (1 - share) * TOTAL / len(table)) for share in shares])
        self._bits = -np.log2(rows / TOTAL)
        self._blends = [Alphabet(row) for row in rows]
        self._choice = Alphabet(np.full(len(shares), TOTAL // len(shares)))

    def add(self, ids: Int[np.ndarray, " t"], encoder: Encoder) -> None:
        """Which blend takes the fewest bits, and the codes under it."""
        if len(ids):
            best = int(self._bits[:, ids].sum(axis=1).argmin())
            encoder.add(np.array([best]), self._choice)
            encoder.add(ids, self._blends[best])

    def take(self, count: int, decoder: Decoder | CutDecoder) -> Int[np.ndarray, " t"]:
        """So many codes, or fewer where the end is missing."""
        blend = decoder.take(min(count, 1), self._choice)
        return decoder.take(count, self._blends[blend[0]]) if len(blend) else blend


class TableCoder(Coder):
    """Codes under the frequencies of tables.

    Args:
        tables: Which ones; None for equal frequencies of all that codes may be.
        spec: What the codes may be.
    """

    def __init__(self, tables: CodeTables | None, spec: CodeSpec) -> None:
        self.kind = EQUAL if tables is None else TABLES
        self.name = "" if tables is None else tables.name
        shares = (0.0,) if tables is None else _SHARES
        tables = CodeTables.measure([], spec) if tables is None else tables
        self.spec = spec
        self.ids = [_Blends(row, shares) for row in tables.ids]
        self.frequencies = np.zeros((0, 1), dtype=np.int32) if tables.grains is None else tables.grains
        self.grains = [Alphabet(row) for row in self.frequencies]
        self.lengths = None if tables.lengths is None else Alphabet(tables.lengths)

    def encode(self, tiles: Sequence[Codes]) -> list[bytes]:
        """The sections of tiles. See `Coder.encode`."""
        encoders = [Encoder() for _ in self.ids]
        if self.lengths is not None:
            encoders[0].add(np.concatenate([tile.lengths.numpy() for tile in tiles]), self.lengths)
            ids = np.concatenate([tile.ids.numpy() for tile in tiles])
            self.ids[0].add(ids[_in_turn([len(tile.ids) for tile in tiles])], encoders[0])
            return [encoders[0].finish()]
        for tile in tiles:
            grains = tile.require_grains().numpy()
            places = neighbourhoods(grains, self.spec.granularities).ravel()
            encoders[0].add_each(grains.ravel(), self.frequencies[places])
            regions = np.bincount(grains.ravel(), minlength=self.spec.granularities)
            parts = np.split(tile.ids.numpy(), (regions * self.spec.codes_per_region).cumsum()[:-1])
            for encoder, part, blends in zip(encoders, parts, self.ids, strict=True):
                blends.add(part, encoder)
        return [encoder.finish() for encoder in encoders]

    def decode(self, sections: Sequence[bytes], grids: Sequence[Grid], rest: bytes = b"") -> list[DecodedTile]:
        """The tiles of sections. See `Coder.decode`."""
        if self.lengths is not None:
            return self._on_no_grid(sections, len(grids), rest)
        decoders = [Decoder(section) for section in sections]
        return [self._tile(decoders, grid) for grid in grids]

    def check(self, tiles: Sequence[Codes]) -> bytes:
        """Nothing: tables are the same everywhere."""
        return b""

    def _on_no_grid(self, sections: Sequence[bytes], tiles: int, rest: bytes) -> list[DecodedTile]:
        assert self.lengths is not None
        if sections:
            decoder = Decoder(sections[0])
            lengths = decoder.take(tiles, self.lengths)
            found = self.ids[0].take(int(lengths.sum()), decoder)
        else:
            beginning = CutDecoder(rest)
            lengths = beginning.take(tiles, self.lengths)
            found = self.ids[0].take(int(lengths.sum()), beginning) if len(lengths) == tiles else lengths[:0]
            if len(found) < tiles:
                raise UserError("it is cut before the first code of every tile")
        turns = _in_turn(lengths.tolist())[: len(found)]
        tile = np.repeat(np.arange(tiles), lengths)[turns]
        parts = np.split(found[np.argsort(tile, kind="stable")], np.bincount(tile, minlength=tiles).cumsum()[:-1])
        return [DecodedTile(Codes(torch.from_numpy(part), torch.tensor([len(part)]))) for part in parts]

    def _tile(self, decoders: Sequence[Decoder], grid: Grid) -> DecodedTile:
        assert grid is not None
        grains = torch.from_numpy(self._grains(decoders[0], grid))
        regions = torch.bincount(grains.flatten(), minlength=self.spec.granularities).tolist()
        counts = [count * codes for count, codes in zip(regions, self.spec.codes_per_region, strict=True)]
        # the last sections may be missing
        parts = [
            torch.from_numpy(blends.take(count, decoder))
            for decoder, count, blends in zip(decoders, counts, self.ids, strict=False)
        ]
        known = grains < len(decoders)
        if not known.all():
            # a region whose codes are missing gets one, which stands among those of the coarsest granularity
            coarse = torch.zeros(grains.shape, dtype=torch.long)
            coarse[grains == 0] = parts[0]
            grains = grains.where(known, 0)
            parts[0] = coarse[grains == 0]
        ids = torch.cat(parts)
        return DecodedTile(Codes(ids, torch.tensor([len(ids)]), grains[None]), None if known.all() else known)

    def _grains(self, decoder: Decoder, grid: tuple[int, int]) -> Int[np.ndarray, "h w"]:
        """A grain map: each region after those that it depends on."""
        beyond = self.spec.granularities
        # lists: of an array, each look at one number costs ten times as much
        around = [[beyond] * (grid[1] + 2) for _ in range(grid[0] + 1)]
        for row in range(1, grid[0] + 1):
            for column in range(1, grid[1] + 1):
                left, above, right = around[row][column - 1], around[row - 1][column], around[row - 1][column + 1]
                place = neighbourhood(left, above, right, beyond)
                around[row][column] = decoder.take_one(self.grains[place])
        return np.array([line[1:-1] for line in around[1:]])


def _in_turn(lengths: Sequence[int]) -> Int[np.ndarray, " t"]:
    """The codes of tiles of these lengths in the order of a file: the first ones of all, then the second ones."""
    return np.argsort(np.concatenate([np.arange(length) for length in lengths]), kind="stable")


def measured_bits(codes: Codes, rate: str = "", *, coder: TableCoder) -> Float[Tensor, " b"]:
    """The bits of the files of images, headers included, each of which is one tile under tables.

    Args:
        codes: Of images whose sides are multiples of the coarsest factor.
        rate: What was asked for, as the files say it.
        coder: Of codes of the same tokenizer.
    """
    sizes = []
    for image in codes.on_host:
        height, width = (1, 1) if image.grains is None else image.grains.shape[1:]
        factor = coder.spec.factors[0] if coder.spec.gridded else 1
        header = Header(bytes(NAME_BYTES), coder.kind, bytes(NAME_BYTES), height * factor, width * factor, rate=rate)
        sizes.append(file_size(header, coder.encode([image])))
    return torch.tensor(sizes, dtype=torch.float64) * 8
