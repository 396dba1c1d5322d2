"""The header of a `.vlt` file: with its version and its checks some 14 bytes.

```
what                    one number: what models the codes; whether the picture is a square, in tiles, at a rate; and
                        how many sections there are
tokenizer               the first 2 bytes of its fingerprint
model                   the first 2 bytes of that of the tables or of the prior; none for equal frequencies
height, width           of the picture before it was padded, in pixels; of a square its side
tile                    the most units along a side of a tile, where the picture is in several
rate                    what was asked for, where something was: a byte for its kind, its value in half bytes
lengths                 of every section, in bytes
codes                   the CRC-16 of the codes, where a prior models them
```

Numbers take a byte up to 191, two up to 16,319, and five beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vltok.errors import UserError

#: How many bytes of a fingerprint are kept.
NAME_BYTES = 2
#: What models the codes.
EQUAL, TABLES, PRIOR = KINDS = (0, 1, 2)
#: How many bytes the CRC-16 of the codes takes.
CODES_BYTES = 2
#: The first bytes of numbers that take two bytes, and of those that take five.
_TWO, _FIVE = 192, 255
#: The kinds of rates by number; later ones stand at the end. What is no such rate is told as a text.
_RATES = ("", "codes", "max-codes", "mean-codes", "bpp", "psnr", "ssim", "lpips", "threshold", "ratios")
_MEASURED = ",measured"
#: The characters of a value, each half a byte; the last one ends it.
_CHARACTERS = "0123456789.:,-e\0"


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        tokenizer: How the fingerprint of the tokenizer starts.
        kind: What models the codes, one of `KINDS`.
        model: How the fingerprint of the tables or of the prior starts; empty for equal frequencies.
        height: Of the picture before it was padded, in pixels.
        width: In pixels.
        tile: The most units along a side of a tile; 0 where the picture is one.
        rate: What the tokenizer was asked for, as the user wrote it; empty for its own choice.
        codes: The CRC-16 of the codes; empty unless a prior models them.
    """

    tokenizer: bytes
    kind: int
    model: bytes
    height: int
    width: int
    tile: int = 0
    rate: str = ""
    codes: bytes = b""


class Reader:
    """Reads one value after another from the beginning of a file.

    Raises:
        UserError: The file ends before it.
    """

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def take(self, count: int) -> bytes:
        """The next bytes."""
        start, self.place = self.place, self.place + count
        if self.place > len(self.data):
            raise UserError(f"it is cut within its header: {len(self.data)} bytes are left")
        return self.data[start : self.place]

    def byte(self) -> int:
        """The next byte, as a number."""
        return self.take(1)[0]


def named(fingerprint: str) -> bytes:
    """How a file names what has a fingerprint."""
    return bytes.fromhex(fingerprint)[:NAME_BYTES]


def is_named(fingerprint: str, name: bytes) -> bool:
    """Whether a file, of whatever version, names what has a fingerprint."""
    return bytes.fromhex(fingerprint).startswith(name)


def written(header: Header, lengths: Sequence[int]) -> bytes:
    """The bytes of a header, before sections of these lengths."""
    square, tiled, rated = header.height == header.width, header.tile > 0, header.rate != ""
    what = header.kind + len(KINDS) * (square + 2 * (tiled + 2 * (rated + 2 * len(lengths))))
    numbers = [header.height, *([] if square else [header.width]), *([header.tile] if tiled else [])]
    return b"".join(
        [
            _number(what),
            header.tokenizer,
            header.model,
            *map(_number, numbers),
            _rate(header.rate) if rated else b"",
            *map(_number, lengths),
            header.codes,
        ]
    )


def read(reader: Reader) -> tuple[Header, list[int]]:
    """A header that `written` gave, and the lengths of the sections.

    Raises:
        UserError: It is cut, or none.
    """
    what, kind = divmod(_read_number(reader), len(KINDS))
    sections, square, tiled, rated = what >> 3, what & 1, what >> 1 & 1, what >> 2 & 1
    tokenizer = reader.take(NAME_BYTES)
    model = b"" if kind == EQUAL else reader.take(NAME_BYTES)
    height = _read_number(reader)
    width = height if square else _read_number(reader)
    tile = _read_number(reader) if tiled else 0
    rate = _read_rate(reader) if rated else ""
    lengths = [_read_number(reader) for _ in range(sections)]
    codes = reader.take(CODES_BYTES) if kind == PRIOR else b""
    return Header(tokenizer, kind, model, height, width, tile, rate, codes), lengths


def _number(value: int) -> bytes:
    if value < _TWO:
        return bytes([value])
    if (rest := value - _TWO) < (_FIVE - _TWO) << 8:
        return bytes([_TWO + (rest >> 8), rest & 0xFF])
    return bytes([_FIVE]) + value.to_bytes(4, "big")


def _read_number(reader: Reader) -> int:
    first = reader.byte()
    if first < _TWO:
        return first
    return _TWO + (first - _TWO << 8) + reader.byte() if first < _FIVE else int.from_bytes(reader.take(4), "big")


def _rate(rate: str) -> bytes:
    """A kind and a value such as ``codes=400``, or any text."""
    kind, _, value = rate.removesuffix(_MEASURED).partition("=")
    if kind not in _RATES[1:] or not value or not set(value) <= set(_CHARACTERS[:-1]):
        text = rate.encode()
        return bytes([0]) + _number(len(text)) + text
    digits = [_CHARACTERS.index(character) for character in value + "\0" * (2 - len(value) % 2)]
    pairs = [high << 4 | low for high, low in zip(digits[::2], digits[1::2], strict=True)]
    return bytes([2 * _RATES.index(kind) + rate.endswith(_MEASURED), *pairs])


def _read_rate(reader: Reader) -> str:
    number, measured = divmod(reader.byte(), 2)
    if not number:
        return reader.take(_read_number(reader)).decode("utf-8", "replace")
    value = ""
    while not value.endswith("\0"):
        pair = reader.byte()
        value += _CHARACTERS[pair >> 4] + _CHARACTERS[pair & 0xF]
    kind = _RATES[number] if number < len(_RATES) else f"rate-{number}"
    return f"{kind}={value.rstrip(_CHARACTERS[-1])}{_MEASURED if measured else ''}"
