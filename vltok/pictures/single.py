"""One picture as a notebook loads it."""

from __future__ import annotations

import os
import random

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vltok.errors import UserError, whole_number
from vltok.pictures.decoding import CorruptPicture, decode
from vltok.pictures.transforms import CentreCrop, padded, to_tensor
from vltok.shown import from_pillow


def load_image(
    picture: str | os.PathLike | bytes | Image.Image, *, size: int | None = None, divisor: int | None = None
) -> Float[Tensor, "3 H W"]:
    """A picture as a tokenizer takes it: floats in [-1, 1], upright, RGB.

    Args:
        picture: Its file or the file's bytes, of any mode and depth, or a Pillow image.
        size: Resize the shorter side to so many pixels and take the square in the middle, as a tokenizer needs it that
            takes images of one size alone.
        divisor: Continue the picture on the right and below by its own reflection, until the sides are multiples of so
            many pixels (`tokenizer.divisor`); `[:, :height, :width]` of what is decoded has its size again.

    Raises:
        UserError: The picture cannot be read, or a number is below 1.
    """
    if isinstance(picture, Image.Image):
        image = from_pillow(picture)
    else:
        try:
            image = decode(picture)
        except CorruptPicture as error:
            name = "the bytes" if isinstance(picture, bytes) else f"'{os.fspath(picture)}'"
            raise UserError(f"{name} cannot be read as a picture: {error}") from error
    if size is not None:
        image = CentreCrop(whole_number("size", size, 1))(image, random.Random())
    pixels = to_tensor(image)
    if divisor is None:
        return pixels
    divisor = whole_number("divisor", divisor, 1)
    return padded(pixels, divisor, divisor)
