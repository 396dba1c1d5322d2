"""Any picture file, whatever its mode, depth and colours, becomes 8-bit RGB: the pixels that a viewer shows.

* 16-bit and float samples are scaled to 8 bits, never clipped;
* colours are converted to sRGB, where an ICC profile is embedded, or a PNG says what they are (`cICP`, `gAMA`, `cHRM`);
* transparent pixels show white, the usual background of the web;
* the orientation of EXIF is followed, once;
* of several frames or pages, the first is taken;
* nothing else that stands beside the pixels counts, and if it is broken, it costs no picture.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from vltok.pictures.colours import png_profile, to_srgb
from vltok.pictures.formats import register_plugins, remedy
from vltok.pictures.salvage import Bare, bare

#: A picture of more pixels is refused: one of so many takes 2 GB, and a few bytes can claim any number.
MOST_PIXELS = 500_000_000

# The largest values that samples of some depth take: a picture is scaled by the smallest that holds its values.
_INTEGER_CEILINGS = (2.0**16 - 1, 2.0**31 - 1)
_FLOAT_CEILINGS = (1.0, 2.0**8 - 1, 2.0**16 - 1)
_ORIENTATION, _ICC_PROFILE = 0x0112, 34675
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OPENING = threading.Lock()


class CorruptPicture(Exception):
    """A file that is no picture, or only part of one; the message says why, in a few words."""


def decode(source: bytes | str | os.PathLike, least_side: int | None = None) -> Image.Image:
    """A picture as an 8-bit RGB image in sRGB, upright.

    Args:
        source: The file's bytes, or its path.
        least_side: Sides of at least so many pixels are all that is needed, which lets large JPEGs be decoded at a
            half, a quarter or an eighth of their size.

    Raises:
        CorruptPicture: It cannot be read, or has more than `MOST_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata: what matters is whether the pixels can be read
            if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
                raise ValueError("it is a folder, a pipe or a device, and no file")  # a pipe would be waited for
            try:
                return _decode(source, least_side)
            except CorruptPicture:
                raise
            except Exception as error:  # Pillow's plugins raise many kinds: SyntaxError, struct.error, zlib.error, …
                image = _decode_bare(source, least_side)
                if image is None:
                    raise error
                return image
    except Exception as error:
        raise CorruptPicture(_reason(source, error)) from error


def to_rgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """A Pillow image of any mode as RGB in sRGB, on white.

    Args:
        image: The image.
        profile: Its ICC profile; by default the one that it was read with.
    """
    profile = profile or image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes) else None
    clear = image.info.get("transparency")  # one colour, of the depth that is stored
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        array = np.asarray(image)
        image = Image.fromarray(_to_8_bits(array))
        if isinstance(clear, int):
            image = Image.merge("LA", (image, Image.fromarray((array != clear).astype(np.uint8) * 255)))
    elif image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    image = to_srgb(image if image.mode in ("L", "CMYK") else image.convert("RGB"), profile)
    if alpha is not None:
        image.putalpha(alpha)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def upright(image: Image.Image, orientation: int | None = None) -> Image.Image:
    """An image turned as EXIF says: by default the image's own."""
    if orientation is None:
        image.load()  # Pillow turns a TIFF itself, and a PNG may tell of it after the pixels
        orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def stored_mode(source: bytes | str | os.PathLike) -> str:
    """How Pillow names the way in which a picture is stored, such as `RGB` or `I;16`; `?` where it cannot tell."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with _open(source) as image:
            return image.mode
    return "?"


def _decode(source: bytes | str | os.PathLike, least_side: int | None, beside: Bare | None = None) -> Image.Image:
    with _open(source) as image:
        if image.format == "TIFF" and _is_deep_and_planar(image):
            return _decode_tiff(source)
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        _check_size(*image.size)
        # what is decoded of JPEG XL is turned, whatever its EXIF says
        profile, orientation = None, 1 if image.format == "JXL" else None
        if beside is not None:
            profile = beside.profile
            orientation = None if beside.exif is None else _orientation_of(beside.exif)
        if image.format == "PNG":
            head = _head(source, 2**16)
            profile = png_profile(head if b"IDAT" in head else _head(source, 2**24))
        return to_rgb(upright(image, orientation), profile)


def _decode_bare(source: bytes | str | os.PathLike, least_side: int | None) -> Image.Image | None:
    """The picture from its pixels alone, or None where they are broken, too."""
    file = source if isinstance(source, bytes) else _head(source)
    with contextlib.suppress(Exception):
        left = bare(file)
        if left is not None:
            return _decode(left.file, least_side, left)
    if file[:2] == b"\xff\xd8":
        with contextlib.suppress(Exception):
            return _decode_unended(file, least_side)
    if file[:2] in (b"II", b"MM"):
        with contextlib.suppress(Exception):
            return _decode_tiff(source)
    return None


def _decode_unended(file: bytes, least_side: int | None) -> Image.Image | None:
    """A JPEG that lacks nothing but the mark at its end: whatever is put there, no pixel changes."""
    filled, other = (_decode(file + filling + b"\xff\xd9", least_side) for filling in (b"", b"\x5a\xc3" * 512))
    return filled if filled.tobytes() == other.tobytes() else None


@contextlib.contextmanager
def _open(source: bytes | str | os.PathLike) -> Iterator[Image.Image]:
    register_plugins()
    with _OPENING:  # Pillow's own limit is far below what scanners give
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise CorruptPicture(
            f"it has {width} × {height} pixels, more than {MOST_PIXELS // 10**6} millions: shrink it, or cut it up"
        )


def _head(source: bytes | str | os.PathLike, size: int = -1) -> bytes:
    """The file, or so many bytes at its start."""
    if isinstance(source, bytes):
        return source if size < 0 else source[:size]
    with open(source, "rb") as file:
        return file.read(size)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # of a kind for each way in which EXIF can be broken
        return 1


def _orientation_of(exif: bytes) -> int:
    image = Image.new("1", (1, 1))
    image.info["exif"] = exif
    return _orientation(image)


def _is_deep_and_planar(image: Image.Image) -> bool:
    # Pillow reads 16-bit channels that are stored plane by plane as if they were 8-bit ones
    bits_per_sample, planar_configuration = 258, 284
    bits = image.tag_v2.get(bits_per_sample, (8,))
    return image.tag_v2.get(planar_configuration, 1) == 2 and int(np.max(bits)) > 8


def _decode_tiff(source: bytes | str | os.PathLike) -> Image.Image:
    """A TIFF of a kind that Pillow does not read: channels of floats, of 64 bits, or deep ones stored as planes."""
    import tifffile  # of the extra [data], while pictures that Pillow reads need it not

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of metadata is no news
    with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        page = file.pages[0]
        _check_size(page.imagewidth, page.imagelength)
        array = page.asarray()
        if page.axes.startswith("S"):
            array = np.moveaxis(array, 0, -1)
        tags = {code: page.tags[code].value for code in (_ORIENTATION, _ICC_PROFILE) if code in page.tags}
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] > 4):
        raise ValueError(f"its samples have the shape {array.shape}, which is no picture's")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    image = to_rgb(Image.fromarray(_to_8_bits(array)), tags.get(_ICC_PROFILE))
    return upright(image, tags.get(_ORIENTATION, 1))


def _to_8_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    ceilings = _FLOAT_CEILINGS if array.dtype.kind == "f" else _INTEGER_CEILINGS
    array = np.nan_to_num(array.astype(np.float64))
    low, high = array.min(), array.max()
    ceiling = next((ceiling for ceiling in ceilings if high <= ceiling), None)
    if low < 0 or ceiling is None:  # no depth has such values: show their whole range
        array, ceiling = array - low, max(high - low, 1e-12)
    return np.rint(array * (255 / ceiling)).astype(np.uint8)


def _reason(source: bytes | str | os.PathLike, error: Exception) -> str:
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source) if os.path.isfile(source) else None
    if size == 0:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"no picture in a format that Pillow reads{_hint(_head(source, 16))}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _hint(start: bytes) -> str:
    """What lets a file be read that starts so."""
    if start[4:8] == b"ftyp":
        return f" ({remedy('.avif' if start[8:11] == b'avi' else '.heic')})"
    return f" ({remedy('.jxl')})" if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")) else ""
