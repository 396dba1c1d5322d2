"""Codes of one granularity, each after what lies beside it.

Axis letters: h w grid of regions, H W cells of the finest grid, t code, v vocabulary.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Int32

from vltok.codes import CodeSpec
from vltok.compression.coding import Alphabet, Decoder, Encoder
from vltok.compression.contexts import CLASSES, TOGETHER, Contexts, states_of
from vltok.compression.frequencies import TOTAL, quantized
from vltok.compression.neighbours import Neighbours, corners, known_before
from vltok.errors import UserError


class ContextCoder:
    """Codes of one granularity: the class of each, row by row, then which codes of their classes they are.

    Args:
        contexts: How often classes follow others.
        table: How often each code occurs.
        granularity: Which one.
        spec: What the codes may be.
    """

    def __init__(self, contexts: Contexts, table: Int32[np.ndarray, " v"], granularity: int, spec: CodeSpec) -> None:
        self._contexts, self._granularity, self._spec = contexts, granularity, spec
        self._classes = contexts.classes[granularity]
        self._states = states_of(contexts.classes)
        self._members = [np.flatnonzero(self._classes == number) for number in range(CLASSES)]
        self._place = np.zeros(len(table), dtype=np.int64)
        self._bits = np.zeros(len(table))
        self._within: dict[int, Alphabet] = {}
        for number, members in enumerate(self._members):
            if len(members):
                frequencies = quantized(table[members].astype(np.float64))
                self._place[members] = np.arange(len(members))
                self._bits[members] = -np.log2(frequencies / TOTAL)
                self._within[number] = Alphabet(frequencies)
        self._alphabets: dict[tuple[int, int], Alphabet] = {}

    def bits(self, seen: Neighbours) -> float:
        """How many bits codes take."""
        frequencies = self._contexts.of(self._granularity, seen)
        own = frequencies[np.arange(len(seen.ids)), self._classes[seen.ids]]
        return float(self._bits[seen.ids].sum() - np.log2(own / TOTAL).sum())

    def add(self, seen: Neighbours, encoder: Encoder) -> None:
        """Add codes."""
        classes = self._classes[seen.ids]
        encoder.add_each(classes, self._contexts.of(self._granularity, seen))
        for number in np.unique(classes).tolist():
            encoder.add(self._place[seen.ids[classes == number]], self._within[number])

    def take(
        self, code_map: Int[np.ndarray, "H W"], grains: Int[np.ndarray, "h w"], decoder: Decoder
    ) -> Int[np.ndarray, " t"]:
        """The next codes, those of all regions of the granularity.

        Args:
            code_map: Of the codes, as far as those of coarser granularities.
            grains: Of the regions.
            decoder: Gives them.

        Raises:
            UserError: The bytes are none of such codes.
        """
        # lists: of an array, each look at one number costs ten times as much
        states = self._states[known_before(code_map[None], grains[None], self._granularity, self._spec)[0]].tolist()
        _, rows, columns = (each.tolist() for each in corners(grains[None], self._granularity, self._spec))
        cells = self._spec.sides[-1] // self._spec.sides[self._granularity]
        classes = np.empty(len(rows), dtype=np.int64)
        for number, (row, column) in enumerate(zip(rows, columns, strict=True)):
            classes[number] = found = decoder.take_one(self._alphabet(states[row - 1][column], states[row][column - 1]))
            state = self._granularity * (CLASSES // TOGETHER) + found // TOGETHER
            for line in states[row : row + cells]:
                line[column : column + cells] = [state] * cells
        ids = np.empty_like(classes)
        for number in np.unique(classes).tolist():
            here = classes == number
            if number not in self._within:
                raise UserError("its codes are damaged")
            ids[here] = self._members[number][decoder.take(int(here.sum()), self._within[number])]
        return ids

    def _alphabet(self, above: int, left: int) -> Alphabet:
        if (above, left) not in self._alphabets:
            self._alphabets[above, left] = Alphabet(self._contexts.frequencies[self._granularity, above, left])
        return self._alphabets[above, left]
