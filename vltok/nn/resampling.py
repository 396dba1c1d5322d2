"""Halving and doubling the sides of a feature map, as in VQGAN."""

import torch
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

    Both are one transposed convolution of stride 2, which multiplies 4/9 as often: two of the three rows (and columns)
    of the kernel meet copies of the same value, so that they are summed first.

    Args:
        channels: Width of input and output.
    """

    sums: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        # which rows of the kernel each row of the transposed one is the sum of
        rows = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
        self.register_buffer("sums", torch.kron(rows, rows), persistent=False)

    def forward(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c _ _"]:
        """The map at twice the resolution."""
        if x[:, 0].numel() <= x.shape[1]:  # summing the kernel would take longer than it saves
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return F.conv_transpose2d(x, self.kernel(), self.conv.bias, stride=2, padding=1)

    def kernel(self) -> Float[Tensor, "c d 4 4"]:
        """The weight of the transposed convolution."""
        return (self.conv.weight.flatten(2) @ self.sums).unflatten(2, (4, 4)).transpose(0, 1)
