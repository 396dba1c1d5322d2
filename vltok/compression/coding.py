"""An entropy coder of whole numbers, each under frequencies of its own: the range coder of `constriction`.

Axis letters: s symbol, n what a symbol may be.
"""

from __future__ import annotations

import contextlib
from typing import Any

import constriction
import numpy as np
from jaxtyping import Int

from vltok.errors import UserError

#: Bits of the coder's words and of its state.
_WORD, _STATE = 32, 64
#: The most that the bytes of a section can say after those that are there.
_FULL = b"\xff" * 1024


class Alphabet:
    """What a symbol may be, and how often each occurs.

    Args:
        frequencies: As `quantized` gives them.
    """

    def __init__(self, frequencies: Int[np.ndarray, " n"]) -> None:
        # The coder gives each outcome 1, and divides what is left of its total by what it is told: exactly these.
        left = (frequencies - 1).astype(np.float64)
        # a symbol that can only be one needs no bits; the coder knows no such alphabet
        self.model = None if len(left) == 1 else constriction.stream.model.Categorical(left, perfect=False)


class Encoder:
    """Turns symbols into bytes."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def add(self, symbols: Int[np.ndarray, " s"], alphabet: Alphabet) -> None:
        """Add symbols of an alphabet."""
        if alphabet.model is not None and len(symbols):
            self._coder.encode(np.ascontiguousarray(symbols, dtype=np.int32), alphabet.model)

    def add_each(self, symbols: Int[np.ndarray, " s"], frequencies: Int[np.ndarray, "s n"]) -> None:
        """Add symbols, each of an alphabet of its own."""
        if frequencies.shape[1] > 1 and len(symbols):
            model = constriction.stream.model.Categorical(perfect=False)
            self._coder.encode(symbols.astype(np.int32), model, (frequencies - 1).astype(np.float64))

    def finish(self) -> bytes:
        """The fewest bytes that say what was added.

        The coder's own last word is a whole one. Any number within its last interval would do: the one with the most
        zero bytes at its end is taken, which are left out.
        """
        words = self._coder.get_compressed()
        position, (lower, spread) = self._coder.pos()
        bits = _WORD * position + _STATE
        # the words that were given are those of the interval's lower end, rounded up to a whole word
        given = int.from_bytes(words[: position + 1].astype(">u4").tobytes(), "big")
        rest = lower % (1 << _WORD)
        least = ((given - 1 << _WORD) + rest) if rest else given << _WORD
        shift = spread.bit_length() // 8 * 8 + 8
        while (nearest := -(-least >> shift) << shift) >= least + spread:  # rounded up to so many zeros
            shift -= 8
        return nearest.to_bytes(bits // 8, "big").rstrip(b"\0")


class Decoder:
    """Turns bytes back into symbols.

    Args:
        data: What `Encoder.finish` gave.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4 + _STATE // 8)
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, dtype=">u4").astype(np.uint32))

    def take(self, count: int, alphabet: Alphabet) -> Int[np.ndarray, " s"]:
        """The next symbols, of an alphabet.

        Raises:
            UserError: The bytes are none of such symbols.
        """
        if alphabet.model is None or not count:
            return np.zeros(count, dtype=np.int64)
        return np.asarray(self._decoded(alphabet, count), dtype=np.int64)

    def take_one(self, alphabet: Alphabet) -> int:
        """The next symbol, of an alphabet.

        Raises:
            UserError: The bytes are none of such symbols.
        """
        return 0 if alphabet.model is None else int(self._decoded(alphabet))

    def _decoded(self, alphabet: Alphabet, *count: int) -> Any:
        try:
            return self._coder.decode(alphabet.model, *count)
        except (AssertionError, ValueError) as error:
            raise UserError("its codes are damaged") from error


class CutDecoder:
    """Turns the beginning of what `Encoder.finish` gave into symbols, as far as it says which they are.

    What is missing makes the number that was written larger by something between nothing and the most that its bytes
    can say: where both ends mean the same symbol, it is this one.

    Args:
        data: The beginning.
    """

    def __init__(self, data: bytes) -> None:
        self._ends = Decoder(data), Decoder(data + _FULL)

    def take(self, count: int, alphabet: Alphabet) -> Int[np.ndarray, " s"]:
        """At most so many of the next symbols, of an alphabet."""
        found: list[int] = []
        with contextlib.suppress(UserError):  # the most that bytes can say may lie beyond all symbols
            while len(found) < count:
                low, high = (decoder.take_one(alphabet) for decoder in self._ends)
                if low != high:
                    break
                found.append(low)
        return np.array(found, dtype=np.int64)
