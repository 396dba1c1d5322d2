"""Images as 8-bit pixels, which is what a reader of a figure sees, and the error between them.

Reconstructions and images are given in [-1, 1]; both sides are clamped and rounded to 8 bits before they are compared.
"""

from collections.abc import Iterator

import torch
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

_BAND_PIXELS = 2**20


def to_bytes(images: Float[Tensor, "*b 3 H W"]) -> UInt8[Tensor, "*b 3 H W"]:
    """Images in [-1, 1] as pixels of 8 bits; values outside are clamped. An 8-bit picture comes back exactly."""
    return _rounded(images).byte()


def to_unit_range(pixels: UInt8[Tensor, "*b 3 H W"]) -> Float[Tensor, "*b 3 H W"]:
    """Pixels in 0 … 255 as floats in [-1, 1]."""
    return pixels.float().div_(127.5).sub_(1)


def to_picture(pixels: UInt8[Tensor, "3 H W"]) -> Image.Image:
    """A picture in RGB of these pixels."""
    return Image.fromarray(rearrange(pixels, "c H W -> H W c").cpu().numpy())


def mse(reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """The mean squared error of each image, of pixel values in [0, 1]."""
    return _mean(((_rounded(reconstructions) - _rounded(images)) / 255).square())


def l1(reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """The mean absolute error of each image, of pixel values in [0, 1]."""
    return _mean(((_rounded(reconstructions) - _rounded(images)) / 255).abs())


def psnr(reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """The peak signal-to-noise ratio of each image, in dB: -10 · log10 of its `mse`.

    It would be infinite for equal pictures: these count as if a single value were off by one, the least error that
    8 bits can show. A reconstruction that holds NaN has a PSNR of NaN.
    """
    # torchmetrics has this too, but importing it takes longer than all else that `vltok reconstruct` does to start
    return decibels(mse(reconstructions, images).clamp(min=1 / 255**2 / images.shape[1:].numel()))


def picture_psnr(reconstruction: UInt8[Tensor, "3 H W"], picture: UInt8[Tensor, "3 H W"]) -> float:
    """The same of one picture of any size: as floats, it would take many times its memory."""
    squares = sum(
        int((one.int() - other.int()).square().sum())
        for one, other in zip(bands(reconstruction), bands(picture), strict=True)
    )
    return decibels(torch.tensor(max(squares, 1) / 255**2 / picture.numel())).item()


def bands(picture: UInt8[Tensor, "3 H W"], beyond: int = 0) -> Iterator[UInt8[Tensor, "3 _ W"]]:
    """A picture in bands of rows, each of which takes little memory.

    Args:
        picture: Its pixels.
        beyond: How many rows of the next one each band has too; one of no more rows than that is left out.
    """
    rows = max(1, _BAND_PIXELS // picture.shape[2])
    for start in range(0, picture.shape[1] - beyond, rows):
        yield picture[:, start : start + rows + beyond]


def decibels(error: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The peak signal-to-noise ratio of a mean squared error of values in [0, 1]; infinite for none.

    Of the error of all images together, this is torchmetrics' default (`psnr_pooled`): it counts squared error, which a
    gate saves by giving hard images more codes. The mean of `psnr` counts a decibel of an easy image like one of a hard
    image.
    """
    return -10 * torch.as_tensor(error).log10()


def _rounded(images: Tensor) -> Tensor:
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round()


def _mean(errors: Tensor) -> Tensor:
    return reduce(errors, "b c H W -> b", "mean")
