"""Parts of picture files, put together as no library writes them."""

import struct
import zlib
from collections.abc import Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes, *, spoilt: bool = False) -> bytes:
    """A chunk of a PNG; with a checksum that does not fit, if it is to be spoilt."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ spoilt)


def with_chunks(png: bytes, *chunks: bytes, behind: bool = False) -> bytes:
    """A PNG with more chunks before its pixels, or behind them."""
    place = len(png) - 12 if behind else 33
    return png[:place] + b"".join(chunks) + png[place:]


def with_segments(jpeg: bytes, *segments: tuple[int, bytes]) -> bytes:
    """A JPEG with more segments, each of a marker and a content, at its start."""
    parts = (struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def short(tag: int, value: int) -> bytes:
    """An entry of TIFF or EXIF that holds one number of 16 bits."""
    return struct.pack("<HHIHH", tag, 3, 1, value, 0)


def exif(*entries: bytes) -> bytes:
    """EXIF of some entries; a value that an entry points to stands behind it, from 12 bytes a entry + 14 on."""
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", 0)


def with_tags(tiff: bytes, *entries: bytes) -> bytes:
    """A little-endian TIFF with more tags."""
    (place,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, place)
    own = [tiff[place + 2 + 12 * index : place + 14 + 12 * index] for index in range(count)]
    tags = sorted([*own, *entries], key=lambda entry: struct.unpack_from("<H", entry))
    tiff += b"\0" * (len(tiff) % 2)
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)


def icc_profile(
    space: bytes, tags: Sequence[tuple[bytes, bytes]], kind: bytes = b"scnr", pcs: bytes = b"XYZ "
) -> bytes:
    """An ICC profile of version 2 with these tags."""
    start = 132 + 12 * len(tags)
    entries, contents = b"", b""
    for name, content in tags:
        entries += name + struct.pack(">II", start + len(contents), len(content))
        contents += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI", start + len(contents), 0x02100000) + kind + space + pcs + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + contents
