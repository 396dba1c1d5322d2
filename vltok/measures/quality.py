"""What reconstructions have lost, image by image, on 8-bit pixels: PSNR, SSIM, l1, mean squared error, LPIPS."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from vltok.errors import UserError
from vltok.losses.perceptual import LPIPS
from vltok.measures.pixels import psnr, squared_error
from vltok.pictures.transforms import to_unit_range

_HALF_WINDOW = 5


class Quality:
    """Measures batches of reconstructions.

    Args:
        lpips: The perceptual distance, with its weights loaded, or None to leave it out.
    """

    def __init__(self, lpips: LPIPS | None = None) -> None:
        self._lpips = lpips

    @torch.inference_mode()
    def __call__(
        self, reconstructions: UInt8[Tensor, "b 3 H W"], images: UInt8[Tensor, "b 3 H W"]
    ) -> dict[str, Float[Tensor, " b"]]:
        """The figures of each image.

        Returns:
            `psnr`: in dB, data range 255. `ssim`: Wang et al. 2004, over the places where their Gaussian window
            (σ = 1.5, 11 × 11) lies inside the image, mean over channels. `l1`: the mean absolute error of pixel values
            in [0, 1]. `mse`: their mean squared error. `lpips`: of VGG16, on pixel values in [-1, 1].

        Raises:
            UserError: An image is smaller than the window.
        """
        decoded, original = to_unit_range(reconstructions), to_unit_range(images)
        found = {
            "psnr": psnr(decoded, original),
            "ssim": _ssim(reconstructions.float(), images.float()),
            "l1": (decoded - original).abs().mean(dim=(1, 2, 3)) / 2,
            "mse": squared_error(decoded, original),
        }
        if self._lpips is not None:
            # the loss is a mean over its batch
            each = torch.vmap(lambda first, second: self._lpips(first[None], second[None]))
            found["lpips"] = each(decoded, original)
        return found


def _ssim(first: Tensor, second: Tensor) -> Tensor:
    if min(first.shape[2:]) < 2 * _HALF_WINDOW + 1:
        raise UserError(
            f"SSIM needs pictures of at least {2 * _HALF_WINDOW + 1} pixels a side, not {min(first.shape[2:])}"
        )
    _, places = structural_similarity_index_measure(
        first, second, data_range=255.0, reduction="none", return_full_image=True
    )
    # torchmetrics continues the images by their reflection, where scikit-image and the paper count no place
    inside = slice(_HALF_WINDOW, -_HALF_WINDOW)
    return places[:, :, inside, inside].mean(dim=(1, 2, 3))
