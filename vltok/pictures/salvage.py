"""Picture files without what stands beside the pixels, where that is so broken that Pillow does not read them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from vltok.colours import png_chunks

_ADOBE = b"\xff\xee\x00\x0eAdobe"
_EXIF, _PROFILE = b"Exif\0\0", b"ICC_PROFILE\0"
# what says how the pixels of a TIFF are stored and turned, and its profile; the numbers are those of the format
_TIFF_TAGS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338, 339}
    | {347, *range(512, 522), 529, 530, 531, 532, 34675}
)


@dataclass(frozen=True)
class Bare:
    """A picture without what is broken.

    Attributes:
        file: The file, of its pixels and what they need.
        exif: Its EXIF, which may be broken; None where the file still has it.
        profile: Its ICC profile; None where there is none, or the file still has it.
    """

    file: bytes
    exif: bytes | None = None
    profile: bytes | None = None


def bare(file: bytes) -> Bare | None:
    """A JPEG, PNG, TIFF or WebP file of the pixels alone; None of another file."""
    if file.startswith(b"\xff\xd8"):
        return _bare_jpeg(file)
    if file.startswith(b"\x89PNG"):
        return _bare_png(file)
    if file[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _bare_tiff(file)
    if file[:4] == b"RIFF" and file[8:12] == b"WEBP":
        return _bare_webp(file)
    return None


def _bare_jpeg(file: bytes) -> Bare:
    """Without segments of applications and comments, but Adobe's, which tells how colours are coded."""
    kept, position, exif, profile = [b"\xff\xd8"], 2, None, {}
    while file[position : position + 1] == b"\xff":
        marker = file[position + 1 : position + 2]
        if marker == b"\xff":  # filling
            position += 1
            continue
        end = position + 2 + int.from_bytes(file[position + 2 : position + 4], "big")
        segment, content = file[position:end], file[position + 4 : end]
        if marker == b"\xda" or end == position + 2:  # the pixels begin
            break
        if content.startswith(_EXIF):
            exif = exif or content
        elif content.startswith(_PROFILE) and len(content) > len(_PROFILE) + 2:
            profile[content[len(_PROFILE)]] = content[len(_PROFILE) + 2 :]
        if not (b"\xe0" <= marker <= b"\xef" or marker == b"\xfe") or segment.startswith(_ADOBE):
            kept.append(segment)
        position = end
    return Bare(b"".join([*kept, file[position:]]), exif, b"".join(profile[part] for part in sorted(profile)) or None)


def _bare_png(file: bytes) -> Bare:
    """Without optional chunks, but the transparent colour where it can be one; checksums are made good for those."""
    kept, exif, colour_type = [file[:8]], None, 0
    for name, content, chunk in png_chunks(file):
        if name == b"IHDR":
            colour_type = content[9]
        elif name == b"eXIf":
            exif = content
        if name in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            kept.append(chunk)
        elif name == b"tRNS" and len(content) >= {0: 2, 2: 6}.get(colour_type, 0):
            kept.append(
                struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
            )
    return Bare(b"".join(kept), exif)


def _bare_tiff(file: bytes) -> Bare:
    """With a byte of a tag that nobody reads in the place of the others."""
    order, big = "<" if file[:2] == b"II" else ">", b"+" in file[2:4]
    start, count_type, entry = (8, "Q", 20) if big else (4, "I", 12)
    patched = bytearray(file)
    try:
        (directory,) = struct.unpack_from(order + count_type, file, start)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), file, directory)
        first = directory + (8 if big else 2)
        for place in range(first, min(first + count * entry, len(file) - entry), entry):
            if struct.unpack_from(order + "H", file, place)[0] not in _TIFF_TAGS:
                struct.pack_into(order + "HH" + count_type, patched, place, 65000, 1, 1)
    except struct.error:
        pass
    return Bare(bytes(patched))


def _bare_webp(file: bytes) -> Bare:
    """With the chunks of pixels alone, and the size that they have."""
    kept, position, exif, profile = [], 12, None, None
    while position + 8 <= len(file):
        end = position + 8 + int.from_bytes(file[position + 4 : position + 8], "little")
        name, content = file[position : position + 4], file[position + 8 : end]
        if name == b"EXIF":
            exif = content
        elif name == b"ICCP":
            profile = content
        elif name in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"):
            flags = bytes([content[0] & ~0b101100]) if name == b"VP8X" and content else b""  # no profile, EXIF, XMP
            kept.append(file[position : position + 8] + flags + content[len(flags) :] + b"\0" * (end % 2))
        position = end + end % 2
    body = b"WEBP" + b"".join(kept)
    return Bare(b"RIFF" + struct.pack("<I", len(body)) + body, exif, profile)
