"""What is seen and lost in regions."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from vltok.errors import UserError
from vltok.measures.regions import local_contrast, luminance, region_errors, split_regions


def test_luminance_is_that_of_pillow() -> None:
    picture = skimage.data.chelsea()[:32, :48]
    grey = luminance(torch.from_numpy(picture.copy()).movedim(-1, 0)[None].float())[0]
    assert np.abs(grey.numpy() - np.asarray(Image.fromarray(picture).convert("L"), dtype=float)).max() <= 0.51


def test_regions_hold_their_own_pixels() -> None:
    maps = torch.arange(2 * 6 * 9.0).view(2, 6, 9)
    regions = split_regions(maps, 3)
    assert regions.shape == (2, 2, 3, 9)
    assert torch.equal(regions[1, 1, 2], maps[1, 3:6, 6:9].flatten())


def test_contrast_of_each_region() -> None:
    images = torch.zeros(1, 3, 8, 16)
    images[:, :, :, 12:] = 1.0  # half of the second region
    assert local_contrast(images, 8).tolist() == [[[0.0, pytest.approx(0.5)]]]


def test_a_picture_that_does_not_divide() -> None:
    with pytest.raises(UserError, match="12 x 16 pixels do not divide into regions of 8 x 8"):
        local_contrast(torch.zeros(1, 3, 12, 16), 8)


def test_a_regions_error_is_the_sum_over_its_pixels_and_channels() -> None:
    images, other = torch.rand(2, 3, 8, 12), torch.rand(2, 3, 8, 12)
    errors = region_errors(other, images, 4)
    assert errors.shape == (2, 2, 3)
    expected = (other - images)[1, :, 4:8, 8:12].square().sum()
    torch.testing.assert_close(errors[1, 1, 2], expected)
    torch.testing.assert_close(errors.sum(), (other - images).square().sum())
