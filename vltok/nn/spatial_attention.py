"""Attention between all places of a feature map."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vltok.nn.norms import GROUPS, group_norm
from vltok.nn.recomputing import Recomputable


class SpatialAttention(Recomputable):
    """Single-head attention between all places of a feature map, added to it, as in VQGAN.

    Args:
        channels: Width of input and output, and of the one head.
        groups: Groups of the norm, or as many as divide both this number and the width.
    """

    def __init__(self, channels: int, groups: int = GROUPS) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """The input plus what each place gathers from all others, scores scaled by c^-½."""
        normed = self.norm(x)
        query, key, value = (
            rearrange(projection(normed), "b c H W -> b 1 (H W) c") for projection in (self.query, self.key, self.value)
        )
        gathered = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(rearrange(gathered, "b 1 (H W) c -> b c H W", H=x.shape[2]))
