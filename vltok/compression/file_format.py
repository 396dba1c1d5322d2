"""The `.vlt` file: a header of some 25 bytes, then sections from coarse to fine.

```
"VLT" 1                 what it is, and the format's version
kind, sections          what models the codes, and how many sections there are, in one number
tokenizer               the first 3 bytes of its fingerprint
model                   the first 3 bytes of that of the tables or of the prior; none for equal frequencies
height, width           of the picture before it was padded, in pixels
tile                    the most units along a side of a tile; 0 where the picture is one
rate                    the length of a text, and the text
lengths                 of every section, in bytes
codes                   the CRC-16 of the codes, where a prior models them
header                  the CRC-16 of all before
file                    the CRC-32 of all but itself
sections
```

Numbers are LEB128, checks big-endian. The first sections of a file that was cut are as good as before.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from vltok.errors import UserError

MAGIC = b"VLT"
VERSION = 1
#: How many bytes of a fingerprint are kept.
NAME_BYTES = 3
#: What models the codes.
EQUAL, TABLES, PRIOR = KINDS = (0, 1, 2)
_CHECKS = 2, 4
#: A number has no more bytes.
_LONGEST_NUMBER = 5


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


@dataclass(frozen=True)
class VltFile:
    """A file, or the beginning of one.

    Attributes:
        header: What it says of itself.
        sections: Those that are there whole.
        ends: Where each section ends, those that are missing too, in bytes from the beginning of the file.
        size: How many bytes are there.
        rest: The beginning of the first section that is not there whole.
    """

    header: Header
    sections: tuple[bytes, ...]
    ends: tuple[int, ...]
    size: int
    rest: bytes = b""

    @property
    def cut(self) -> bool:
        """Whether the end of the file is missing."""
        return self.size < self.ends[-1]


def named(fingerprint: str) -> bytes:
    """How a file names what has a fingerprint."""
    return bytes.fromhex(fingerprint)[:NAME_BYTES]


def pack(header: Header, sections: Sequence[bytes]) -> bytes:
    """The bytes of a file."""
    first = _first(header, sections)
    first += binascii.crc_hqx(first, 0).to_bytes(_CHECKS[0], "big")
    rest = b"".join(sections)
    return first + zlib.crc32(rest, zlib.crc32(first)).to_bytes(_CHECKS[1], "big") + rest


def file_size(header: Header, sections: Sequence[bytes]) -> int:
    """How many bytes `pack` would give."""
    return len(_first(header, sections)) + sum(_CHECKS) + sum(map(len, sections))


def unpack(data: bytes) -> VltFile:
    """A file, or the beginning of one, checked as far as it is there.

    Raises:
        UserError: It is no such file, of another version, cut within its header, or changed.
    """
    if not data.startswith(MAGIC):
        raise UserError("it is no .vlt file")
    if data[len(MAGIC) :] and data[len(MAGIC)] != VERSION:
        raise UserError(f"it has version {data[len(MAGIC)]} of the format, and this vltok reads version {VERSION}")
    reader = _Reader(data, len(MAGIC) + 1)
    count, kind = divmod(reader.number(), len(KINDS))
    tokenizer = reader.take(NAME_BYTES)
    model = b"" if kind == EQUAL else reader.take(NAME_BYTES)
    height, width, tile = reader.number(), reader.number(), reader.number()
    rate = reader.take(reader.number())
    lengths = [reader.number() for _ in range(count)]
    codes = reader.take(_CHECKS[0]) if kind == PRIOR else b""
    first = data[: reader.place]
    said = reader.take(_CHECKS[0])
    if binascii.crc_hqx(first, 0).to_bytes(_CHECKS[0], "big") != said or not (count and height and width):
        raise UserError("it is damaged: its header is not as it was written")
    checksum = reader.take(_CHECKS[1])
    sections: list[bytes] = []
    ends: list[int] = []
    start = reader.place
    for length in lengths:
        ends.append((ends[-1] if ends else start) + length)
        if ends[-1] <= len(data):
            sections.append(data[ends[-1] - length : ends[-1]])
    if len(data) > ends[-1]:
        raise UserError(f"it is damaged: something follows its {ends[-1]} bytes")
    if len(data) == ends[-1] and zlib.crc32(data[start:], zlib.crc32(first + said)).to_bytes(4, "big") != checksum:
        raise UserError("it is damaged: its checksum does not fit what it holds")
    header = Header(tokenizer, kind, model, height, width, tile, rate.decode("utf-8", "replace"), codes)
    rest = data[ends[len(sections) - 1] if sections else start :]
    return VltFile(header, tuple(sections), tuple(ends), len(data), rest)


class _Reader:
    """Reads the header of a file.

    Raises:
        UserError: The file ends before it.
    """

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def take(self, count: int) -> bytes:
        start, self.place = self.place, self.place + count
        if self.place > len(self.data):
            raise UserError(f"it is cut within its header: {len(self.data)} bytes are left")
        return self.data[start : self.place]

    def number(self) -> int:
        value = 0
        for place in range(_LONGEST_NUMBER):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        raise UserError("it is damaged: its header is not as it was written")


def _first(header: Header, sections: Sequence[bytes]) -> bytes:
    """The header, as far as its own check covers it."""
    rate = header.rate.encode()
    numbers = [header.height, header.width, header.tile, len(rate)]
    lengths = [len(section) for section in sections]
    return b"".join(
        [
            MAGIC,
            bytes([VERSION]),
            _number(len(sections) * len(KINDS) + header.kind),
            header.tokenizer,
            header.model,
            *map(_number, numbers),
            rate,
            *map(_number, lengths),
            header.codes,
        ]
    )


def _number(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
