"""Local contrast: how much there is to see in a region, measured on the picture alone."""

from jaxtyping import Float
from torch import Tensor

from vltok.errors import UserError

#: The share of red, green and blue in luminance (ITU-R BT.601), applied to the pixel values as they are stored.
LUMINANCE = (0.299, 0.587, 0.114)


def luminance(images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b H W"]:
    """The weighted mean of the channels (`LUMINANCE`), in the range of the images."""
    red, green, blue = images.unbind(1)
    return LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue


def split_regions(maps: Float[Tensor, "b H W"], region: int) -> Float[Tensor, "b h w pixels"]:
    """The values of each region of `region` x `region` pixels.

    Raises:
        UserError: A side of the maps is no multiple of `region`.
    """
    height, width = maps.shape[1:]
    if height % region or width % region:
        raise UserError(f"pictures of {height} x {width} pixels do not divide into regions of {region} x {region}")
    return maps.unflatten(2, (-1, region)).unflatten(1, (-1, region)).transpose(2, 3).flatten(3)


def local_contrast(images: Float[Tensor, "b 3 H W"], region: int) -> Float[Tensor, "b h w"]:
    """The standard deviation of luminance in each region of `region` x `region` pixels, in the range of the images.

    Raises:
        UserError: A side of the images is no multiple of `region`.
    """
    return split_regions(luminance(images), region).std(dim=3, correction=0)
