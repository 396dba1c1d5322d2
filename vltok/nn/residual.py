"""Residual blocks of VQGAN, and the two ways in which it strings them together."""

import itertools

from jaxtyping import Float
from torch import Tensor, nn

from vltok.errors import UserError
from vltok.nn.convolutions import plus_convolved
from vltok.nn.norms import GROUPS, group_norm_silu
from vltok.nn.recomputing import Recomputable
from vltok.nn.spatial_attention import SpatialAttention


class ResidualBlock(Recomputable):
    """Two normed 3×3 convolutions around which the input is added.

    ```
    x ─┬─ norm, SiLU, conv 3×3 ── norm, SiLU, dropout, conv 3×3 ─ + ─►
       └───────────────── (conv 1×1 if the width changes) ────────┘
    ```

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output; that of the input by default.
        dropout: Probability with which a value before the second convolution becomes 0 in training.
        groups: Groups of the norms, or as many as divide both this number and the width.
    """

    def __init__(
        self, in_channels: int, out_channels: int | None = None, dropout: float = 0.0, groups: int = GROUPS
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.norm1 = group_norm_silu(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm_silu(out_channels, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d H W"]:
        """The input (projected if the width changes) plus what the convolutions make of it."""
        h = self.conv1(self.norm1(x))
        return plus_convolved(self.shortcut(x), self.conv2, self.dropout(self.norm2(h)))


class ResidualStage(nn.Module):
    """Residual blocks at one resolution, each followed by attention where asked for.

    Args:
        in_channels: Width of the input.
        out_channels: Width after the first block.
        blocks: Number of residual blocks.
        attention: Whether attention over the whole map follows each block.
        dropout: Probability of dropout in the residual blocks.
        groups: Groups of the norms, or as many as divide both this number and the width.

    Raises:
        UserError: There is no block.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        attention: bool = False,
        dropout: float = 0.0,
        groups: int = GROUPS,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise UserError(f"blocks must be at least 1, not {blocks}")
        widths = [in_channels] + [out_channels] * blocks
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, dropout, groups) for before, after in itertools.pairwise(widths)
        )
        self.attentions = nn.ModuleList(
            SpatialAttention(out_channels, groups) if attention else nn.Identity() for _ in range(blocks)
        )

    def forward(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d H W"]:
        """Pass through every block in turn."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x))
        return x


class AttentiveResidual(nn.Module):
    """Two residual blocks, with attention between them where asked for: the middle of VQGAN.

    Args:
        channels: Width of input and output.
        dropout: Probability of dropout in the residual blocks.
        attention: Whether there is attention between them.
        groups: Groups of the norms, or as many as divide both this number and the width.
    """

    def __init__(self, channels: int, dropout: float = 0.0, attention: bool = True, groups: int = GROUPS) -> None:
        super().__init__()
        self.first = ResidualBlock(channels, dropout=dropout, groups=groups)
        self.attention = SpatialAttention(channels, groups) if attention else nn.Identity()
        self.second = ResidualBlock(channels, dropout=dropout, groups=groups)

    def forward(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Pass through block, attention, block."""
        return self.second(self.attention(self.first(x)))
