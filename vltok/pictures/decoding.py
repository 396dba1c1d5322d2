"""Any picture file, whatever its mode and depth, becomes 8-bit RGB.

* 16-bit and float samples are scaled to 8 bits, never clipped;
* transparent pixels show white, the usual background of the web;
* the EXIF orientation is applied;
* of several frames or pages, the first is taken.
"""

from __future__ import annotations

import io
import os
import stat
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps

#: The file name extensions that count as pictures: the raster formats of photographs and scans that Pillow reads.
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga"}
)

# The largest values that samples of some depth take: a picture is scaled by the smallest that holds its values.
_INTEGER_CEILINGS = (2.0**16 - 1, 2.0**31 - 1)
_FLOAT_CEILINGS = (1.0, 2.0**8 - 1, 2.0**16 - 1)


class CorruptPicture(Exception):
    """A file that is no picture, or only part of one; the message says why, in a few words."""


def decode(source: bytes | str | os.PathLike, least_side: int | None = None) -> Image.Image:
    """A picture as an 8-bit RGB image, upright.

    Args:
        source: The file's bytes, or its path.
        least_side: Sides of at least so many pixels are all that is needed, which lets large JPEGs be decoded at a
            half, a quarter or an eighth of their size.

    Raises:
        CorruptPicture: It cannot be read.
    """
    try:
        with warnings.catch_warnings():
            # odd metadata, harmless: what matters is whether the pixels can be read
            warnings.filterwarnings("ignore", module=r"PIL\..*", category=UserWarning)
            return _decode(source, least_side)
    except Exception as error:  # Pillow's plugins raise many kinds: SyntaxError, struct.error, zlib.error, …
        raise CorruptPicture(_reason(source, error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode as RGB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _array_to_rgb(np.asarray(image))
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _decode(source: bytes | str | os.PathLike, least_side: int | None) -> Image.Image:
    if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
        raise ValueError("it is a folder, a pipe or a device, and no file")  # a pipe would be waited for
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Image.UnidentifiedImageError:
        if not _is_tiff(source):
            raise
        return _decode_tiff(source)
    with image:
        if image.format == "TIFF" and _is_deep_and_planar(image):
            return _decode_tiff(source)
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        return to_rgb(ImageOps.exif_transpose(image))


def _is_tiff(source: bytes | str | os.PathLike) -> bool:
    if isinstance(source, bytes):
        return source[:2] in (b"II", b"MM")
    with open(source, "rb") as file:
        return file.read(2) in (b"II", b"MM")


def _is_deep_and_planar(image: Image.Image) -> bool:
    # Pillow reads 16-bit channels that are stored plane by plane as if they were 8-bit ones
    bits_per_sample, planar_configuration = 258, 284
    bits = image.tag_v2.get(bits_per_sample, (8,))
    return image.tag_v2.get(planar_configuration, 1) == 2 and int(np.max(bits)) > 8


def _decode_tiff(source: bytes | str | os.PathLike) -> Image.Image:
    """A TIFF of a kind that Pillow does not read: channels of floats, of 64 bits, or deep ones stored as planes."""
    import tifffile  # of the extra [data], while pictures that Pillow reads need it not

    with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        page = file.pages[0]
        array = page.asarray()
        if page.axes.startswith("S"):
            array = np.moveaxis(array, 0, -1)
        orientation = page.tags.get("Orientation")
    image = _array_to_rgb(array)
    if orientation is not None:
        exif = image.getexif()
        exif[0x0112] = int(orientation.value)
        image = ImageOps.exif_transpose(image)
    return image


def _array_to_rgb(array: np.ndarray) -> Image.Image:
    """Samples of any depth, `[H W]` or `[H W c]` with one to four channels, scaled to 8 bits."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] > 4):
        raise ValueError(f"its samples have the shape {array.shape}, which is no picture's")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return to_rgb(Image.fromarray(_to_8_bits(array)))


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
        return "no picture in a format that Pillow reads"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
