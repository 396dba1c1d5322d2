"""Crops take what they say, and nothing else."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from vltok.pictures.transforms import CentreCrop, Crop, RandomCrop, ScaledCrop, to_tensor


def positions(width: int, height: int) -> Image.Image:
    """A picture whose red channel tells how far right a pixel is, and its green one how far down."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).round().astype(np.uint8))


@pytest.mark.parametrize("size", [(96, 72), (72, 96), (64, 64), (40, 300), (1, 9)])
@pytest.mark.parametrize(
    "crop", [CentreCrop(32), RandomCrop(32), ScaledCrop(32, (1.0, 4.0)), ScaledCrop(32, (0.5, 0.5))]
)
def test_any_picture_becomes_a_square(crop: Crop, size: tuple[int, int]) -> None:
    assert crop(positions(*size), random.Random(0)).size == (32, 32)


def test_centre_crop_takes_the_middle() -> None:
    cropped = np.asarray(CentreCrop(32)(positions(192, 64), random.Random(0)), np.float64)
    assert cropped[..., 0].mean() == pytest.approx(127.5, abs=1)
    assert cropped[..., 0].min() == pytest.approx(255 / 3, abs=3)
    assert cropped[..., 0].max() == pytest.approx(255 * 2 / 3, abs=3)
    assert cropped[..., 1].min() <= 3
    assert cropped[..., 1].max() >= 252


def test_crop_of_the_same_size_keeps_the_very_pixels(astronaut: Image.Image) -> None:
    square = astronaut.crop((0, 0, 48, 48))
    assert CentreCrop(48)(square, random.Random(0)).tobytes() == square.tobytes()


def test_random_crops_reach_everywhere_and_half_are_mirrored() -> None:
    crop = RandomCrop(16)
    generator = random.Random(0)
    pixels = np.stack([np.asarray(crop(positions(64, 16), generator), np.float64) for _ in range(300)])
    assert pixels[..., 0].min() < 10
    assert pixels[..., 0].max() > 245
    mirrored = (pixels[:, 0, 0, 0] > pixels[:, 0, -1, 0]).mean()
    assert mirrored == pytest.approx(0.5, abs=0.1)


def test_without_flip_none_is_mirrored() -> None:
    generator = random.Random(0)
    for crop in (RandomCrop(16, flip=False), ScaledCrop(16, (1.0, 2.0), flip=False)):
        for _ in range(20):
            pixels = np.asarray(crop(positions(64, 64), generator), np.int64)
            assert (np.diff(pixels[..., 0], axis=1) >= 0).all()


def test_scaled_crops_have_the_scales_that_were_asked_for() -> None:
    crop = ScaledCrop(16, (1.0, 4.0), flip=False)
    generator = random.Random(0)
    widths = []
    for _ in range(300):
        red = np.asarray(crop(positions(128, 128), generator), np.float64)[..., 0]
        widths.append((red[:, -1] - red[:, 0]).mean() / 255 * 128 * 16 / 15)
    assert min(widths) == pytest.approx(16, abs=2)
    assert max(widths) == pytest.approx(64, abs=4)
    assert np.median(widths) == pytest.approx(32, abs=4)  # log-uniform


def test_shrinking_does_not_alias() -> None:
    checkers = Image.fromarray((np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB")
    shrunk = np.asarray(CentreCrop(64)(checkers, random.Random(0)), np.float64)
    assert np.abs(shrunk - 127.5).max() < 4


def test_tensor_spans_the_unit_range() -> None:
    tensor = to_tensor(positions(256, 8))
    assert tensor.shape == (3, 8, 256)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor[0, 0, [0, -1]], torch.tensor([-1.0, 1.0]))
    assert torch.equal(tensor[2], torch.full((8, 256), -1.0))
