"""Crops: a picture of any size becomes a square of `size` pixels. Axis letters: c channel, H W pixels."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image
from torch import Tensor

from vltok.measures.pixels import to_unit_range


class Crop(ABC):
    """Takes a square out of a picture."""

    @abstractmethod
    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        """The square, `size` pixels wide; whatever is random about it comes from the generator."""


@dataclass(frozen=True)
class CentreCrop(Crop):
    """The shorter side is resized to `size`, and the middle is taken.

    Attributes:
        size: Side of the crop in pixels.
    """

    size: int

    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        side = min(image.size)
        return _resized_square(image, (image.width - side) / 2, (image.height - side) / 2, side, self.size)


@dataclass(frozen=True)
class RandomCrop(Crop):
    """The shorter side is resized to `size`, a random square is taken, and half of them are mirrored.

    As VQGAN trains (https://arxiv.org/abs/2012.09841).

    Attributes:
        size: Side of the crop in pixels.
        flip: Mirror half of the crops left to right.
    """

    size: int
    flip: bool = True

    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        return _random_square(image, min(image.size), self.size, self.flip, generator)


@dataclass(frozen=True)
class ScaledCrop(Crop):
    """A random square of a random size, resized to `size`: a few large photographs give many different crops.

    Attributes:
        size: Side of the crop in pixels, after it was resized.
        scales: Smallest and largest side of the square in the photograph, in multiples of `size`, drawn log-uniformly;
            a square is never larger than the photograph.
        flip: Mirror half of the crops left to right.
    """

    size: int
    scales: tuple[float, float]
    flip: bool = True

    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        low, high = (min(self.size * scale, min(image.size)) for scale in self.scales)
        side = round(math.exp(generator.uniform(math.log(low), math.log(high))))
        return _random_square(image, max(side, 1), self.size, self.flip, generator)


def to_bytes_tensor(image: Image.Image) -> UInt8[Tensor, "3 H W"]:
    """The pixels of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def padded(pixels: Shaped[Tensor, "3 H W"], height: int, width: int) -> Shaped[Tensor, "3 _ _"]:
    """A picture continued on the right and below by its own reflection, to multiples of a height and of a width."""
    if pixels.shape[1] % height == 0 and pixels.shape[2] % width == 0:
        return pixels  # a big picture need not be copied
    rows, columns = _reflected(pixels.shape[1], height), _reflected(pixels.shape[2], width)
    return pixels[:, rows.to(pixels.device)][:, :, columns.to(pixels.device)]


def _reflected(side: int, divisor: int) -> Int[Tensor, " n"]:
    """Which line of the picture stands at each line of the padded one: 0 1 2 3 2 1 0 1 … for a side of 4."""
    places = torch.arange(math.ceil(side / divisor) * divisor)
    period = max(2 * (side - 1), 1)
    return torch.minimum(places % period, period - places % period) if side > 1 else torch.zeros_like(places)


def to_tensor(image: Image.Image) -> Float[Tensor, "3 H W"]:
    """An RGB image as floats in [-1, 1]."""
    return to_unit_range(to_bytes_tensor(image))


def _random_square(image: Image.Image, side: int, size: int, flip: bool, generator: random.Random) -> Image.Image:
    left = generator.uniform(0, image.width - side)
    top = generator.uniform(0, image.height - side)
    square = _resized_square(image, left, top, side, size)
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and generator.random() < 0.5 else square


def _resized_square(image: Image.Image, left: float, top: float, side: int, size: int) -> Image.Image:
    if side == size:  # nothing to resize: keep the very pixels
        left, top = round(left), round(top)
        return image.crop((left, top, left + size, top + size))
    # resizing only what is kept gives the pixels that resizing all of it would; Pillow's filters do not alias
    box = (left, top, min(left + side, image.width), min(top + side, image.height))
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
