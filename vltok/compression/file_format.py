"""The `.vlt` file: a header, then sections from coarse to fine.

```
"V" 82                  what it is, and the format's version, the second byte in hexadecimal digits
header                  see `vltok.compression.header`
check                   the CRC-16 of all before
check                   the CRC-16 of the same and the sections
sections
```

A file of version 1 starts with "VLT" 1, and its second check is the CRC-32 of all but itself. Checks are big-endian.
The first sections of a file that was cut are as good as before.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vltok.compression import header_1
from vltok.compression.header import Header, Reader, read, written
from vltok.errors import UserError

#: How files start, each before its version: of the first version, and of later ones, whose versions are told with a bit
#: more, so that no text starts so.
_START_1, _START = b"VLT", b"V"
_NO_TEXT = 0x80
VERSION = 2


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


def pack(header: Header, sections: Sequence[bytes]) -> bytes:
    """The bytes of a file."""
    first, rest = _first(header, sections), b"".join(sections)
    return first + _crc_16(first) + _crc_16(first + rest) + rest


def file_size(header: Header, sections: Sequence[bytes]) -> int:
    """How many bytes `pack` would give."""
    return len(_first(header, sections)) + 2 * len(_crc_16(b"")) + sum(map(len, sections))


def unpack(data: bytes) -> VltFile:
    """A file, or the beginning of one, checked as far as it is there.

    Raises:
        UserError: It is no such file, of another version, cut within its header, or changed.
    """
    start = next((each for each in _LAYOUTS if data.startswith(each)), None)
    if start is None:
        raise UserError(_no_file(data))
    layout, reader = _LAYOUTS[start], Reader(data, len(start))
    header, lengths = layout.read(reader)
    first = data[: reader.place]
    check = _crc_16(first)
    if reader.take(len(check)) != check or not (lengths and header.height and header.width):
        raise UserError("it is damaged: its header is not as it was written")
    checksum = reader.take(len(layout.check(b"", b"")))
    sections: list[bytes] = []
    ends: list[int] = []
    first_section = reader.place
    for length in lengths:
        ends.append((ends[-1] if ends else first_section) + length)
        if ends[-1] <= len(data):
            sections.append(data[ends[-1] - length : ends[-1]])
    if len(data) > ends[-1]:
        raise UserError(f"it is damaged: something follows its {ends[-1]} bytes")
    if len(data) == ends[-1] and layout.check(first, data[first_section:]) != checksum:
        raise UserError("it is damaged: its checksum does not fit what it holds")
    rest = data[ends[len(sections) - 1] if sections else first_section :]
    return VltFile(header, tuple(sections), tuple(ends), len(data), rest)


def _no_file(data: bytes) -> str:
    """Why bytes are no file."""
    if data.startswith(_START_1):
        version = data[len(_START_1) :][:1]
    else:
        version = bytes(byte - _NO_TEXT for byte in data[1:2] if data.startswith(_START) and byte > _NO_TEXT)
        if not version:
            return "it is no .vlt file"
    if not version:
        return f"it is cut within its header: {len(data)} bytes are left"
    return f"it has version {version[0]} of the format, and this vltok reads versions up to {VERSION}"


def _first(header: Header, sections: Sequence[bytes]) -> bytes:
    """A file up to its checks."""
    return _START + bytes([_NO_TEXT + VERSION]) + written(header, [len(section) for section in sections])


def _crc_16(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "big")


def _check(first: bytes, rest: bytes) -> bytes:
    return _crc_16(first + rest)


def _check_1(first: bytes, rest: bytes) -> bytes:
    return zlib.crc32(first + _crc_16(first) + rest).to_bytes(4, "big")


@dataclass(frozen=True)
class _Layout:
    """What a version of the format has.

    Attributes:
        read: Reads a header, and the lengths of the sections.
        check: Of a file up to its first check, and of its sections.
    """

    read: Callable[[Reader], tuple[Header, list[int]]]
    check: Callable[[bytes, bytes], bytes]


#: By how a file starts.
_LAYOUTS: Mapping[bytes, _Layout] = {
    _START_1 + bytes([1]): _Layout(header_1.read, _check_1),
    _START + bytes([_NO_TEXT + VERSION]): _Layout(read, _check),
}
