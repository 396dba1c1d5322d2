"""Halving and doubling the sides of a feature map, as in VQGAN."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Downsample(nn.Module):
    """A 3×3 convolution of stride 2 that halves both sides; zeros are added at the right and at the bottom only.

    Args:
        channels: Width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c _ _"]:
        """The map at half the resolution."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling of both sides, then a 3×3 convolution.

    Args:
        channels: Width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c _ _"]:
        """The map at twice the resolution."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
