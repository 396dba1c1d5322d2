"""PSNR, SSIM, l1, squared error and LPIPS against scikit-image and torchmetrics, on the same photographs."""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from vltok.errors import UserError
from vltok.losses.perceptual import LPIPS
from vltok.measures.quality import Quality
from vltok.measures.values import mean_value, pooled_psnr


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


def test_psnr_and_ssim_agree_with_scikit_image(pairs):
    images, coded = pairs
    found = Quality()(coded, images)
    for place in range(3):
        original, decoded = (part[place].movedim(0, -1).numpy() for part in pairs)
        assert found["psnr"][place].item() == pytest.approx(peak_signal_noise_ratio(original, decoded), abs=1e-3)
        ssim = structural_similarity(
            original, decoded, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert found["ssim"][place].item() == pytest.approx(ssim, abs=1e-4)
        error = np.abs(original.astype(float) - decoded).mean() / 255
        assert found["l1"][place].item() == pytest.approx(error, rel=1e-4)
        assert found["mse"][place].item() == pytest.approx(mean_squared_error(original / 255, decoded / 255), rel=1e-4)


def test_the_psnr_of_all_images_together_is_torchmetrics_default(pairs):
    images, coded = pairs
    found = pooled_psnr(mean_value(Quality()(coded, images)["mse"].double().numpy()))
    expected = PeakSignalNoiseRatio(data_range=255.0)(coded.float(), images.float()).item()
    assert found.value == pytest.approx(expected, abs=1e-4)
    assert found.low < found.value < found.high


def test_ssim_agrees_with_torchmetrics_inside_the_image(pairs):
    images, coded = (part.float() for part in pairs)
    _, places = StructuralSimilarityIndexMeasure(data_range=255.0, return_full_image=True)(coded, images)
    expected = places[:, :, 5:-5, 5:-5].mean().item()
    assert Quality()(pairs[1], pairs[0])["ssim"].mean().item() == pytest.approx(expected, abs=1e-6)


def test_a_picture_smaller_than_the_window(pairs):
    images, coded = (part[..., :10, :] for part in pairs)
    with pytest.raises(UserError, match="at least 11 pixels"):
        Quality()(coded, images)


def test_each_image_has_its_own_lpips(pairs):
    """LPIPS itself agrees with torchmetrics': tests/losses/test_perceptual.py."""
    lpips = LPIPS()
    torch.manual_seed(0)
    lpips.slices.extend([torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Conv2d(4, 4, 3)])
    lpips.heads.extend(torch.nn.Parameter(torch.rand(4)) for _ in range(2))
    images, coded = pairs
    found = Quality(lpips)(coded, images)["lpips"]
    with torch.no_grad():
        each = [lpips(coded[[place]] / 127.5 - 1, images[[place]] / 127.5 - 1) for place in range(3)]
    assert torch.allclose(found, torch.stack(each), atol=1e-6) and found.min() > 0
    assert Quality(lpips)(images, images)["lpips"].abs().max() < 1e-6
