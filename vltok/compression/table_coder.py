"""Codes under tables: a section for each granularity, the grain map at the beginning of the first.

Codes that lie on no grid have one section: how many each tile has, the first code of every tile, the second ones, and
so on, so that any beginning of it is a beginning of every tile.

Pictures may be unlike those that tables were measured on. So before codes stands whether they follow what lies beside
them, and else how much they follow the tables, from wholly to not at all, whichever takes the fewest bits: codes never
take more than at equal frequencies, but for 4 bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.compression.coders import Coder, DecodedTile, Grid
from vltok.compression.coding import Alphabet, CutDecoder, Decoder, Encoder
from vltok.compression.context_coder import ContextCoder
from vltok.compression.file_format import file_size
from vltok.compression.frequencies import TOTAL, quantized
from vltok.compression.header import EQUAL, NAME_BYTES, TABLES, Header, named
from vltok.compression.neighbours import Neighbours, lay, neighbours
from vltok.compression.tables import CodeTables, neighbourhood, neighbourhoods
from vltok.errors import UserError

#: The shares of the tables in the frequencies that codes are given, the rest being equal, and how often each is chosen
#: of 16 times; where codes may also follow what lies beside them, that is what remains.
_SHARES = {1.0: 4, 0.75: 4, 0.375: 4, 0.0: 4}
_BESIDE = {1.0: 1, 0.375: 1, 0.0: 1}
_TIMES = 16


class _Choice:
    """The codes of one granularity, which follow what is known of them more or less.

    Args:
        table: How often each code occurs.
        shares: Of the table in the frequencies that may be chosen, each with how often it is, of 16 times.
        context: What else may be chosen.
    """

    def __init__(
        self, table: Int[np.ndarray, " v"], shares: Mapping[float, int], context: ContextCoder | None = None
    ) -> None:
        rows = np.stack([quantized(share * table + (1 - share) * TOTAL / len(table)) for share in shares])
        times = np.array([*shares.values(), *([] if context is None else [_TIMES - sum(shares.values())])])
        self._bits = -np.log2(rows / TOTAL)
        self._blends = [Alphabet(row) for row in rows]
        self._context = context
        self._costs = -np.log2(times / times.sum())
        self._chosen = Alphabet(TOTAL * times // times.sum())

    def add(self, ids: Int[np.ndarray, " t"], encoder: Encoder, seen: Neighbours | None = None) -> None:
        """What takes the fewest bits, and the codes under it; `seen` are the codes with what lies beside them."""
        if not len(ids):
            return
        bits = self._bits[:, ids].sum(axis=1)
        if self._context is not None and seen is not None:
            bits = np.append(bits, self._context.bits(seen))
        best = int((bits + self._costs).argmin())
        encoder.add(np.array([best]), self._chosen)
        if best < len(self._blends):
            encoder.add(ids, self._blends[best])
        elif self._context is not None and seen is not None:
            self._context.add(seen, encoder)

    def take(
        self,
        count: int,
        decoder: Decoder | CutDecoder,
        code_map: Int[np.ndarray, "H W"] | None = None,
        grains: Int[np.ndarray, "h w"] | None = None,
    ) -> Int[np.ndarray, " t"]:
        """So many codes, or fewer where the end is missing; on a grid, beside those that `code_map` has."""
        chosen = decoder.take(min(count, 1), self._chosen)
        if not len(chosen):
            return chosen
        if chosen[0] < len(self._blends):
            return decoder.take(count, self._blends[chosen[0]])
        assert self._context is not None and code_map is not None and grains is not None
        assert isinstance(decoder, Decoder)
        return self._context.take(code_map, grains, decoder)


class _Choices:
    """The codes of one granularity that have several ids: those of each codebook, one codebook after another.

    Args:
        of_ids: Of each codebook.
    """

    def __init__(self, of_ids: Sequence[_Choice]) -> None:
        self._of_ids = of_ids

    def add(self, ids: Int[np.ndarray, "t q"], encoder: Encoder, seen: None = None) -> None:
        """The ids of each codebook. See `_Choice.add`."""
        for choice, part in zip(self._of_ids, ids.T, strict=True):
            choice.add(part, encoder)

    def take(self, count: int, decoder: Decoder, *beside: Int[np.ndarray, "..."]) -> Int[np.ndarray, "t q"]:
        """So many codes; what lies beside them says nothing."""
        return np.stack([choice.take(count, decoder) for choice in self._of_ids], axis=1)


class TableCoder(Coder):
    """Codes under the frequencies of tables.

    Args:
        tables: Which ones; None for equal frequencies of all that codes may be.
        spec: What the codes may be.
    """

    def __init__(self, tables: CodeTables | None, spec: CodeSpec) -> None:
        self.kind = EQUAL if tables is None else TABLES
        self.name = "" if tables is None else tables.name
        tables, shares = (CodeTables.measure([], spec), {0.0: _TIMES}) if tables is None else (tables, _SHARES)
        self.spec = spec
        self.contexts = tables.contexts
        self.ids: list[Any]  # of each granularity
        if self.contexts is None:
            choices = [_Choice(row, shares) for row in tables.ids]
            starts = range(0, len(choices), spec.codebooks)
            several = (_Choices(choices[start : start + spec.codebooks]) for start in starts)
            self.ids = choices if spec.codebooks == 1 else list(several)
        else:
            every = (ContextCoder(self.contexts, row, place, spec) for place, row in enumerate(tables.ids))
            self.ids = [_Choice(*each) for each in zip(tables.ids, itertools.repeat(_BESIDE), every)]
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
            code_map = self._blank(*grains.shape[1:])
            for granularity, (encoder, part, choice) in enumerate(zip(encoders, parts, self.ids, strict=True)):
                seen = None
                if self.contexts is not None:
                    lay(part, code_map, grains[0], granularity, self.spec)
                    seen = neighbours(code_map[None], grains, granularity, self.spec)
                choice.add(part, encoder, seen)
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
        grains = self._grains(decoders[0], grid)
        code_map = self._blank(*grid)
        # the last sections may be missing
        for granularity, (decoder, choice) in enumerate(zip(decoders, self.ids, strict=False)):
            count = int((grains == granularity).sum()) * self.spec.codes_per_region[granularity]
            lay(choice.take(count, decoder, code_map, grains), code_map, grains, granularity, self.spec)
        known = torch.from_numpy(grains < len(decoders))
        # a region whose codes are missing gets one, which stands among those of the coarsest granularity
        there = torch.from_numpy(grains).where(known, 0)
        codes = Codes.from_code_map(torch.from_numpy(code_map)[None], there[None], self.spec)
        return DecodedTile(codes, None if known.all() else known)

    def _blank(self, height: int, width: int) -> Int[np.ndarray, "H W *q"]:
        """A code map of so many regions, on which no codes are laid yet."""
        side = self.spec.sides[-1]
        return np.zeros((height * side, width * side, *self.spec.id_shape), dtype=np.int64)

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
        header = Header(bytes(NAME_BYTES), coder.kind, named(coder.name), height * factor, width * factor, rate=rate)
        sizes.append(file_size(header, coder.encode([image])))
    return torch.tensor(sizes, dtype=torch.float64) * 8
