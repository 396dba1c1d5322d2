"""Pixels of 8 bits, and their PSNR."""

import math

import pytest
import skimage.data
import skimage.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.image import peak_signal_noise_ratio

from vltok.measures.pixels import picture_psnr, psnr, to_bytes
from vltok.measures.similarity import picture_ssim, ssim
from vltok.pictures.transforms import to_unit_range


def test_every_byte_comes_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256).contiguous()
    assert torch.equal(to_bytes(to_unit_range(every)), every)
    assert to_unit_range(every).min() == -1 and to_unit_range(every).max() == 1


def test_values_outside_are_clamped() -> None:
    assert to_bytes(torch.tensor([-7.0, -1.001, 1.5]).view(1, 3, 1, 1)).flatten().tolist() == [0, 0, 255]


@given(st.integers(1, 40))
def test_psnr_is_that_of_scikit_image_and_torchmetrics(spread: int) -> None:
    picture = torch.from_numpy(skimage.data.chelsea()[:60, :80].copy()).movedim(-1, 0)
    generator = torch.Generator().manual_seed(spread)
    noisy = (picture.float() + torch.randn(picture.shape, generator=generator) * spread).round().clamp(0, 255).byte()
    expected = skimage.metrics.peak_signal_noise_ratio(picture.numpy(), noisy.numpy(), data_range=255)
    both = psnr(to_unit_range(torch.stack([noisy, picture])), to_unit_range(torch.stack([picture, noisy])))
    assert both.tolist() == pytest.approx([expected, expected], abs=1e-4)
    torchmetric = peak_signal_noise_ratio(noisy.float()[None], picture.float()[None], data_range=255.0)
    assert both[0].item() == pytest.approx(torchmetric.item(), abs=1e-4)


def test_psnr_sees_what_a_file_holds() -> None:
    images = to_unit_range(torch.full((1, 3, 4, 4), 100, dtype=torch.uint8))
    # off by less than half a level everywhere: the files are equal
    assert torch.equal(psnr(images + 0.4 / 127.5, images), psnr(images, images))
    # beyond the range: the file holds 255
    assert psnr(images + 9, images).item() == pytest.approx(20 * math.log10(255 / 155), abs=1e-4)


def test_equal_pictures_count_as_the_least_error() -> None:
    picture = torch.full((2, 3, 5, 7), 100, dtype=torch.uint8)
    other = picture.clone()
    other[1, 2, 4, 6] = 101
    equal, least = psnr(to_unit_range(other), to_unit_range(picture)).tolist()
    assert equal == pytest.approx(least, abs=1e-4) == pytest.approx(10 * math.log10(255**2 * 105), abs=1e-4)


def test_nan_is_not_hidden() -> None:
    broken = torch.zeros(1, 3, 4, 4)
    broken[0, 0, 0, 0] = torch.nan
    assert psnr(broken, torch.zeros(1, 3, 4, 4)).isnan().all()


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_bands_of_a_picture_have_the_figures_of_the_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vltok.measures.pixels._BAND_PIXELS", rows * 80)
    picture = torch.from_numpy(skimage.data.chelsea()[:60, :80].copy()).movedim(-1, 0)
    other = picture.roll(1, 2)
    whole = [to_unit_range(side)[None] for side in (other, picture)]
    assert picture_psnr(other, picture) == pytest.approx(psnr(*whole).item(), rel=1e-6)
    assert picture_ssim(other, picture) == pytest.approx(ssim(*whole).item(), rel=1e-5)
