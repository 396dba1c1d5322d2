"""Images as 8-bit pixels, which is what a reader of a figure sees, and the error between them."""

from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor


def to_bytes(images: Float[Tensor, "*b 3 H W"]) -> UInt8[Tensor, "*b 3 H W"]:
    """Images in [-1, 1] as pixels of 8 bits; values outside are clamped. An 8-bit picture comes back exactly."""
    return _rounded(images).byte()


def to_picture(pixels: UInt8[Tensor, "3 H W"]) -> Image.Image:
    """A picture in RGB of these pixels."""
    return Image.fromarray(pixels.movedim(0, -1).cpu().numpy())


def psnr(reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """The peak signal-to-noise ratio of each image, in dB.

    Both sides, in [-1, 1], are clamped and rounded to 8 bits first (a data range of 255), so that the figure is that
    of the picture in a file. It would be infinite for equal pictures: these count as if a single value were off by
    one, the least error that 8 bits can show. A reconstruction that holds NaN has a PSNR of NaN.
    """
    # torchmetrics has this too, but importing it takes longer than all else that `vltok reconstruct` does to start
    error = squared_error(reconstructions, images)
    return -10 * error.clamp(min=1 / 255**2 / images.shape[1:].numel()).log10()


def squared_error(reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """The mean squared error of each image's 8-bit pixels, as values in [0, 1]; both sides are given in [-1, 1]."""
    return ((_rounded(reconstructions) - _rounded(images)) / 255).square().mean(dim=(1, 2, 3))


def _rounded(images: Tensor) -> Tensor:
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round()
