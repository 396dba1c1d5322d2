"""PSNR, SSIM, l1 and squared error against scikit-image and torchmetrics, on the same photographs."""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from vltok.errors import UserError
from vltok.measures.pixels import decibels, l1, mse, psnr, to_unit_range
from vltok.measures.similarity import ssim


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs, and what JPEG leaves of them."""
    images, coded = [], []
    for name in ("astronaut", "coffee", "chelsea"):
        picture = Image.fromarray(getattr(skimage.data, name)()).crop((100, 40, 196, 136))
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=20)
        images.append(np.array(picture))
        coded.append(np.array(Image.open(file)))
    return tuple(torch.from_numpy(np.stack(part)).movedim(-1, 1) for part in (images, coded))


def in_unit_range(pairs):
    """What is measured, and against what, in [-1, 1]."""
    return to_unit_range(pairs[1]), to_unit_range(pairs[0])


def test_figures_agree_with_scikit_image(pairs):
    sides = in_unit_range(pairs)
    for place in range(3):
        original, decoded = (part[place].movedim(0, -1).numpy() for part in pairs)
        assert psnr(*sides)[place].item() == pytest.approx(peak_signal_noise_ratio(original, decoded), abs=1e-3)
        similarity = structural_similarity(
            original, decoded, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert ssim(*sides)[place].item() == pytest.approx(similarity, abs=1e-4)
        error = np.abs(original.astype(float) - decoded).mean() / 255
        assert l1(*sides)[place].item() == pytest.approx(error, rel=1e-4)
        assert mse(*sides)[place].item() == pytest.approx(mean_squared_error(original / 255, decoded / 255), rel=1e-4)


def test_the_psnr_of_all_images_together_is_torchmetrics_default(pairs):
    images, coded = pairs
    expected = PeakSignalNoiseRatio(data_range=255.0)(coded.float(), images.float()).item()
    assert decibels(mse(*in_unit_range(pairs)).mean()).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_agrees_with_torchmetrics_inside_the_image(pairs):
    images, coded = (part.float() for part in pairs)
    _, places = StructuralSimilarityIndexMeasure(data_range=255.0, return_full_image=True)(coded, images)
    expected = places[:, :, 5:-5, 5:-5].mean().item()
    assert ssim(*in_unit_range(pairs)).mean().item() == pytest.approx(expected, abs=1e-6)


def test_a_picture_smaller_than_the_window(pairs):
    images, coded = (part[..., :10, :] for part in in_unit_range(pairs))
    with pytest.raises(UserError, match="at least 11 pixels"):
        ssim(coded, images)
