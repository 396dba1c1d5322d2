"""What happens in the regions of an image."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def region_errors(
    reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"], region: int
) -> Float[Tensor, "b h w"]:
    """The squared error of each region of `region` × `region` pixels, summed over its pixels and channels.

    `region` divides the sides of the images.
    """
    errors = (reconstructions.float() - images.float()).square().sum(dim=1, keepdim=True)
    return F.avg_pool2d(errors, region, divisor_override=1)[:, 0]
