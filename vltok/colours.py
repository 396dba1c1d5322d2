"""What the colours of a picture look like, in sRGB: embedded profiles, and what a PNG says instead of one."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageCms

#: Pictures whose colours come out this near to what they were, of 255, are left alone: their profile is sRGB's.
_NEAR = 2
#: A larger profile is none.
_LARGEST_PROFILE = 2**25
_PNG = b"\x89PNG\r\n\x1a\n"
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# x and y of white, red, green and blue (ITU-T H.273, by its numbers)
_PRIMARIES = {
    1: (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_HDR = {16: "PQ", 18: "HLG"}
#: The curve of sRGB as ICC writes it: exponent, then a, b, c, d of its two parts.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES = {4: (2.2,), 5: (2.8,), 8: (1.0,), 13: _SRGB_CURVE}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A grey, RGB or CMYK image as RGB. A profile that is broken, or of other channels, counts for nothing."""
    if profile:
        transform = _transform(profile, image.mode)
        if transform is None and image.mode == "L":  # grey pictures often carry a profile of colours
            image = image.convert("RGB")
            transform = _transform(profile, image.mode)
        if transform is not None:
            return transform.apply(image)
    return image.convert("RGB")


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way to sRGB; None where there is none, or where it changes nothing that anybody sees."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
    image = Image.fromarray(colours if mode == "RGB" else levels[None])
    found = np.asarray(ImageCms.applyTransform(image, transform), dtype=np.int16)
    return transform if np.abs(found - np.asarray(image.convert("RGB"))).max() > _NEAR else None


def png_profile(file: bytes) -> bytes | None:
    """The profile of a PNG: what `cICP`, `iCCP`, `sRGB`, or `gAMA` and `cHRM` tell, the first of these that is there.

    The curves of HDR (PQ, HLG) are not followed.

    Args:
        file: What stands before the pixels, or all of it.
    """
    told: dict[bytes, bytes] = {}
    for name, content, _ in png_chunks(file):
        if name == b"IDAT":
            break
        told.setdefault(name, content)
    try:
        if b"cICP" in told:
            primaries, curve = told[b"cICP"][:2]
            if primaries in _PRIMARIES and curve in _CURVES:
                return rgb_profile(_PRIMARIES[primaries], _CURVES[curve])
        if b"iCCP" in told:
            packed = told[b"iCCP"].partition(b"\0")[2][1:]
            return zlib.decompressobj().decompress(packed, _LARGEST_PROFILE)
        if b"sRGB" in told or b"gAMA" not in told:
            return None
        chromaticities = struct.unpack(">8I", told[b"cHRM"]) if b"cHRM" in told else None
        return _gamma_profile(struct.unpack(">I", told[b"gAMA"])[0], chromaticities)
    except (ValueError, struct.error, zlib.error, ZeroDivisionError, np.linalg.LinAlgError):
        return None


def unfollowed(start: bytes) -> str:
    """What the start of a file says of its colours that nothing here follows; empty for nothing.

    These are the curves of HDR, and colours that HEIC and AVIF name by numbers alone (`nclx`).
    """
    numbers = next((content for name, content, _ in png_chunks(start) if name == b"cICP"), b"")[:2]
    box = start.find(b"colrnclx")
    if box >= 0 and b"colrprof" not in start and b"colrrICC" not in start:
        numbers = start[box + 9 : box + 10] + start[box + 11 : box + 12]
    if len(numbers) < 2:
        return ""
    if numbers[1] in _HDR:
        return f"curve {_HDR[numbers[1]]}"
    return "primaries of a wide gamut" if box >= 0 and numbers[0] in (9, 11, 12) else ""


def info_profile(info: Mapping[str | tuple[int, int], Any]) -> bytes | None:
    """The profile of an image that Pillow has read, from what it keeps beside the pixels."""
    if "icc_profile" in info or "srgb" in info or "gamma" not in info:
        profile = info.get("icc_profile")
        return profile if isinstance(profile, bytes) else None
    try:
        chromaticities = np.multiply(info["chromaticity"], 1e5) if "chromaticity" in info else None
        return _gamma_profile(info["gamma"] * 1e5, chromaticities)
    except (TypeError, ValueError, struct.error, ZeroDivisionError, np.linalg.LinAlgError):
        return None


def _gamma_profile(gamma: float, chromaticities: Sequence[float] | np.ndarray | None) -> bytes:
    """The profile of a PNG's `gAMA` and `cHRM`, in their units of 1e-5."""
    gamma /= 1e5
    # 1 / 2.2 is what pictures in sRGB have always been marked by
    curve = _SRGB_CURVE if abs(gamma - 1 / 2.2) < 1e-3 else (1 / gamma,)
    return rgb_profile(_PRIMARIES[1] if chromaticities is None else np.divide(chromaticities, 1e5), curve)


def png_chunks(file: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The names and contents of the chunks of a PNG, and all of them; whole ones alone, and none of another file."""
    position = len(_PNG) if file.startswith(_PNG) else len(file)
    while position + 12 <= len(file):
        end = position + 8 + int.from_bytes(file[position : position + 4], "big")
        if end > len(file):
            return
        yield file[position + 4 : position + 8], file[position + 8 : end], file[position : end + 4]
        position = end + 4


def rgb_profile(primaries: tuple[float, ...] | np.ndarray, curve: tuple[float, ...]) -> bytes:
    """An ICC profile (version 4) of colours that are mixed of three primaries.

    Args:
        primaries: x and y of white, red, green and blue.
        curve: How light follows from a value: an exponent, alone or with what `_SRGB_CURVE` has.

    Raises:
        ValueError, struct.error, LinAlgError: There are no such colours.
    """
    x, y = np.reshape(primaries, (4, 2)).T
    white, *_ = xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y], 1)
    mixed = np.linalg.solve(xyz[1:].T, white)  # how much of each primary makes white
    adapted = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD)
    columns = adapted @ (xyz[1:] * mixed[:, None]).T
    if not np.isfinite(columns).all():
        raise ValueError("these primaries make no colours")
    tags = {b"%cXYZ" % letter: b"XYZ \0\0\0\0" + _fixed(*columns[:, place]) for place, letter in enumerate(b"rgb")}
    shape = b"para\0\0\0\0" + struct.pack(">HH", 3 if len(curve) > 1 else 0, 0) + _fixed(*curve)
    tags |= {b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50), b"rTRC": shape, b"gTRC": shape, b"bTRC": shape}
    start = 128 + 4 + 12 * len(tags)
    entries, contents = b"", b""
    for name, content in tags.items():
        entries += struct.pack(">4sII", name, start + len(contents), len(content))
        contents += content
    header = struct.pack(">I4sI4s4s4s12x4s", start + len(contents), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    header = header.ljust(68, b"\0") + _fixed(*_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + contents


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))
