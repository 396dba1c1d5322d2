"""A Pillow image of any mode, depth and colours as the 8-bit RGB that a viewer shows: see `vltok.pictures.decoding`."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms

from vltok.colours import info_profile, png_profile, to_srgb
from vltok.errors import UserError

# The largest values that samples of some depth take: a picture is scaled by the smallest that holds its values.
_INTEGER_CEILINGS = (2.0**16 - 1, 2.0**31 - 1, 2.0**32 - 1)
_FLOAT_CEILINGS = (1.0, 2.0**8 - 1, 2.0**16 - 1)
#: The tag of EXIF that says how a picture is turned.
ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def from_pillow(image: Image.Image) -> Image.Image:
    """A Pillow image that somebody gives, as its file would be read: 8-bit RGB in sRGB, upright, on white.

    Raises:
        UserError: Its pixels cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata
            return shown(image)
    except Exception as error:  # Pillow's plugins raise many kinds
        raise UserError(f"a Pillow image cannot be read: {error or type(error).__name__}") from error


def shown(image: Image.Image, profile: bytes | None = None, orientation: int | None = None) -> Image.Image:
    """A Pillow image as 8-bit RGB in sRGB, upright, on white; its profile and orientation are its own by default."""
    profile = profile or _profile_of(image)  # before the pixels are read, and its file is closed
    return to_rgb(upright(image, orientation), profile)


def to_rgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """A Pillow image of any mode as RGB in sRGB, on white.

    Args:
        image: The image.
        profile: Its ICC profile; by default the one that it was read with.
    """
    profile = profile or _profile_of(image)
    clear = image.info.get("transparency")  # one colour, of the depth that is stored
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        array = np.asarray(image)
        image = Image.fromarray(to_8_bits(array))
        if isinstance(clear, int):
            image = Image.merge("LA", (image, Image.fromarray((array != clear).astype(np.uint8) * 255)))
    elif image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(*profiles, "LAB", "RGB").apply(image)
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
        # what is decoded of JPEG XL is turned, whatever its EXIF says
        orientation = 1 if image.format == "JXL" else orientation_of(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def orientation_of(image: Image.Image) -> int:
    """How EXIF says that an image is turned, from 1 (not at all) to 8."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # of a kind for each way in which EXIF can be broken
        return 1


def to_8_bits(array: np.ndarray) -> np.ndarray:
    """Samples of any depth, scaled to 0 … 255."""
    if array.dtype == np.uint8:
        return array
    ceilings = _FLOAT_CEILINGS if array.dtype.kind == "f" else _INTEGER_CEILINGS
    array = array.astype(np.float64)
    array[np.isnan(array)] = 0
    finite = np.isfinite(array)
    low, high = array.min(where=finite, initial=np.inf), array.max(where=finite, initial=-np.inf)
    low, high = (low, high) if low <= high else (0.0, 0.0)
    np.clip(array, low, high, out=array)
    ceiling = next((ceiling for ceiling in ceilings if high <= ceiling), None)
    if low < 0 or ceiling is None:  # no depth has such values: show their whole range
        array, ceiling = array - low, max(high - low, 1e-12)
    return np.rint(array * (255 / ceiling)).astype(np.uint8)


def _profile_of(image: Image.Image) -> bytes | None:
    file: BinaryIO | None = getattr(image, "fp", None)
    if image.format != "PNG" or file is None or file.closed:
        return info_profile(image.info)
    position = file.tell()
    try:
        file.seek(0)
        head = file.read(2**16)
        return png_profile(head if b"IDAT" in head else head + file.read(2**24))
    finally:
        file.seek(position)
