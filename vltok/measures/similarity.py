"""The structural similarity of images."""

from jaxtyping import Float, UInt8
from torch import Tensor

from vltok.errors import UserError
from vltok.measures.pixels import bands, to_bytes, to_unit_range

_HALF_WINDOW = 5
#: The fewest pixels along a side that a picture must have.
SSIM_SIDE = 2 * _HALF_WINDOW + 1


def ssim(reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """The structural similarity (SSIM) of each image's 8-bit pixels; both sides are given in [-1, 1].

    Wang et al. 2004, over the places where their Gaussian window (σ = 1.5, 11 × 11) lies inside the image, mean over
    channels.

    Raises:
        UserError: An image is smaller than the window.
    """
    if min(images.shape[2:]) < SSIM_SIDE:
        raise UserError(f"SSIM needs pictures of at least {SSIM_SIDE} pixels a side, not {min(images.shape[2:])}")
    # importing torchmetrics takes seconds
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, places = structural_similarity_index_measure(
        to_bytes(reconstructions).float(),
        to_bytes(images).float(),
        data_range=255.0,
        reduction="none",
        return_full_image=True,
    )
    # torchmetrics continues the images by their reflection, where scikit-image and the paper count no place
    inside = slice(_HALF_WINDOW, -_HALF_WINDOW)
    return places[:, :, inside, inside].mean(dim=(1, 2, 3))


def picture_ssim(reconstruction: UInt8[Tensor, "3 H W"], picture: UInt8[Tensor, "3 H W"]) -> float:
    """The same of one picture of any size, band by band.

    Raises:
        UserError: It is smaller than the window.
    """
    total, places = 0.0, 0
    overlap = min(2 * _HALF_WINDOW, picture.shape[1] - 1)  # of the places of both bands' windows
    for decoded, original in zip(bands(reconstruction, overlap), bands(picture, overlap), strict=True):
        here = original[0].numel() - overlap * original.shape[2]
        total += here * ssim(*(to_unit_range(side)[None] for side in (decoded, original))).item()
        places += here
    return total / places
