"""Crops: a picture of any size becomes one of a given size. Axis letters: c channel, H W pixels."""

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
    """Takes a rectangle out of a picture."""

    @abstractmethod
    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        """The rectangle, of the size of the crop; whatever is random about it comes from the generator."""


@dataclass(frozen=True)
class CentreCrop(Crop):
    """The middle of the picture, resized so that it covers `size` as closely as can be.

    Attributes:
        size: Side of a square in pixels, or height and width.
    """

    size: int | tuple[int, int]

    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        height, width = _largest(image, self.size)
        return _resized(image, (image.width - width) / 2, (image.height - height) / 2, (height, width), self.size)


@dataclass(frozen=True)
class RandomCrop(Crop):
    """The picture, resized so that it covers `size` as closely as can be, at a random place; half are mirrored.

    As VQGAN trains (https://arxiv.org/abs/2012.09841).

    Attributes:
        size: Side of a square in pixels, or height and width.
        flip: Mirror half of the crops left to right.
    """

    size: int | tuple[int, int]
    flip: bool = True

    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        return _at_random(image, _largest(image, self.size), self.size, self.flip, generator)


@dataclass(frozen=True)
class ScaledCrop(Crop):
    """A random part of a random size, resized to `size`: a few large photographs give many different crops.

    Attributes:
        size: Side of a square in pixels, or height and width, after it was resized.
        scales: Smallest and largest size of the part in the photograph, in multiples of `size`, drawn log-uniformly;
            a part is never larger than the photograph.
        flip: Mirror half of the crops left to right.
    """

    size: int | tuple[int, int]
    scales: tuple[float, float]
    flip: bool = True

    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        (height, width), (most, _) = _sides(self.size), _largest(image, self.size)
        low, high = (min(height * scale, most) for scale in self.scales)
        side = max(float(round(math.exp(generator.uniform(math.log(low), math.log(high))))), 1.0)
        part = side, min(side * width / height, float(image.width))
        return _at_random(image, part, self.size, self.flip, generator)


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


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def _largest(image: Image.Image, size: int | tuple[int, int]) -> tuple[float, float]:
    """Height and width of the largest part of a picture that has the aspect ratio of a size."""
    height, width = _sides(size)
    return (
        min(float(image.height), image.width * height / width),
        min(float(image.width), image.height * width / height),
    )


def _at_random(
    image: Image.Image, part: tuple[float, float], size: int | tuple[int, int], flip: bool, generator: random.Random
) -> Image.Image:
    left = generator.uniform(0, image.width - part[1])
    top = generator.uniform(0, image.height - part[0])
    crop = _resized(image, left, top, part, size)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and generator.random() < 0.5 else crop


def _resized(
    image: Image.Image, left: float, top: float, part: tuple[float, float], size: int | tuple[int, int]
) -> Image.Image:
    """A part of a picture, of some height and width, resized."""
    height, width = _sides(size)
    if part == (height, width):  # nothing to resize: keep the very pixels
        left, top = round(left), round(top)
        return image.crop((left, top, left + width, top + height))
    # resizing only what is kept gives the pixels that resizing all of it would; Pillow's filters do not alias
    box = (left, top, min(left + part[1], image.width), min(top + part[0], image.height))
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
