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
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from vltok.colours import unfollowed
from vltok.pictures.formats import register_plugins, remedy
from vltok.pictures.salvage import Bare, bare
from vltok.shown import ORIENTATION, orientation_of, shown, to_8_bits, to_rgb, upright

#: A picture of more pixels is refused: one of so many takes 2 GB, and a few bytes can claim any number.
MOST_PIXELS = 500_000_000

_ICC_PROFILE = 34675
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


def shape_of(source: bytes | str | os.PathLike) -> tuple[int, int] | None:
    """The height and width of a picture as `decode` shows it, of which only the header is read; None of no picture."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        if isinstance(source, bytes) or stat.S_ISREG(os.stat(source).st_mode):
            with _open(source) as image:
                # to ask a PNG for what stands behind its pixels would decode them; what is decoded of JPEG XL is turned
                ask = "exif" in image.info if image.format == "PNG" else image.format != "JXL"
                turned = ask and orientation_of(image) >= 5
                width, height = image.size
                if isinstance(image, TiffImageFile):  # some versions of Pillow have turned these sides already
                    width, height = (int(image.tag_v2[tag]) for tag in (256, 257))
                return (width, height) if turned else (height, width)
    return None


def stored_mode(source: bytes | str | os.PathLike) -> str:
    """How Pillow names the way in which a picture is stored, such as `RGB` or `I;16`; `?` where it cannot tell.

    Colours that `decode` does not follow stand behind it, as in `RGB (curve PQ)`.
    """
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with _open(source) as image:
            colours = unfollowed(_head(source, 2**14))
            return f"{image.mode} ({colours})" if colours else image.mode
    return "?"


def _decode(source: bytes | str | os.PathLike, least_side: int | None, beside: Bare | None = None) -> Image.Image:
    with _open(source) as image:
        if _is_misread(image):
            return _decode_tiff(source)
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        _check_size(*image.size)
        if beside is None:
            return shown(image)
        return shown(image, beside.profile, None if beside.exif is None else _orientation_of(beside.exif))


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


def _orientation_of(exif: bytes) -> int:
    image = Image.new("1", (1, 1))
    image.info["exif"] = exif
    return orientation_of(image)


def _is_misread(image: Image.Image) -> bool:
    """Whether Pillow takes the samples of a TIFF for others.

    It reads 16-bit channels that are stored plane by plane as 8-bit ones, signed bytes as unsigned ones, and unsigned
    samples of 32 bits as signed ones.
    """
    bits_per_sample, planar_configuration, sample_format = 258, 284, 339
    tags = getattr(image, "tag_v2", {})
    bits, kind = (int(np.max(tags.get(tag, default))) for tag, default in ((bits_per_sample, 1), (sample_format, 1)))
    unsigned, signed = 1, 2
    planes = tags.get(planar_configuration, 1) == 2
    return (planes and bits > 8) or (kind, bits) in ((signed, 8), (unsigned, 32))


def _decode_tiff(source: bytes | str | os.PathLike) -> Image.Image:
    """A TIFF of a kind that Pillow does not read: channels of floats, of 64 bits, or what it misreads."""
    import tifffile  # of the extra [data], while pictures that Pillow reads need it not

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of metadata is no news
    with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        page = file.pages[0]
        _check_size(page.imagewidth, page.imagelength)
        array = page.asarray()
        if page.axes.startswith("S"):
            array = np.moveaxis(array, 0, -1)
        tags = {code: page.tags[code].value for code in (ORIENTATION, _ICC_PROFILE) if code in page.tags}
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] > 4):
        raise ValueError(f"its samples have the shape {array.shape}, which is no picture's")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    image = to_rgb(Image.fromarray(to_8_bits(array)), tags.get(_ICC_PROFILE))
    return upright(image, tags.get(ORIENTATION, 1))


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
