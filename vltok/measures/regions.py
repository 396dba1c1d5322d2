"""What is seen and what is lost in the regions of an image, squares of `region` × `region` pixels."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from vltok.errors import UserError

#: The share of red, green and blue in luminance (ITU-R BT.601), applied to the pixel values as they are stored.
LUMINANCE = (0.299, 0.587, 0.114)
#: The local contrast below which a region is flat, for images in [-1, 1]: 2 of 255 levels.
FLAT = 2 * 2 / 255


def luminance(images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b H W"]:
    """The weighted mean of the channels (`LUMINANCE`), in the range of the images."""
    red, green, blue = images.unbind(1)
    return LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue


def split_regions(maps: Float[Tensor, "b H W"], region: int) -> Float[Tensor, "b h w pixels"]:
    """The values of each region.

    Raises:
        UserError: A side of the maps is no multiple of `region`.
    """
    height, width = maps.shape[1:]
    if height % region or width % region:
        raise UserError(f"pictures of {height} x {width} pixels do not divide into regions of {region} x {region}")
    return rearrange(maps, "b (h down) (w across) -> b h w (down across)", down=region, across=region)


def local_contrast(images: Float[Tensor, "b 3 H W"], region: int) -> Float[Tensor, "b h w"]:
    """The standard deviation of luminance in each region, in the range of the images: how much there is to see.

    Raises:
        UserError: A side of the images is no multiple of `region`.
    """
    return split_regions(luminance(images), region).std(dim=3, correction=0)


def region_errors(
    reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"], region: int
) -> Float[Tensor, "b h w"]:
    """The squared error of each region, summed over its pixels and channels. `region` divides the images' sides."""
    errors = (reconstructions.float() - images.float()).square().sum(dim=1, keepdim=True)
    return F.avg_pool2d(errors, region, divisor_override=1)[:, 0]


def region_l1(
    reconstructions: UInt8[Tensor, "b 3 H W"], images: UInt8[Tensor, "b 3 H W"], region: int
) -> Float[Tensor, "b h w"]:
    """The absolute error of each region's 8-bit pixels, summed over pixels and channels.

    Raises:
        UserError: A side of the images is no multiple of `region`.
    """
    # sums of whole numbers, so that equal errors are equal
    error = (reconstructions.int() - images.int()).abs().sum(dim=1).float()
    return split_regions(error, region).sum(dim=3)
