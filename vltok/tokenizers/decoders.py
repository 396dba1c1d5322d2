"""Decoders: vectors on the finest grid → images."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vltok.errors import UserError
from vltok.interfaces import Decoder
from vltok.nn.levels import plan_levels
from vltok.nn.norms import GROUPS, group_norm_silu
from vltok.nn.resampling import Upsample
from vltok.nn.residual import AttentiveResidual, ResidualStage


class VQGANDecoder(Decoder):
    """VQGAN's decoder, which reads the replicated code map (supplementary 1 of https://arxiv.org/abs/2305.11718).

    ```
    vectors ─ conv ─ middle ─ level 8 ─↑2─ level 4 ─↑2─ level 2 ─↑2─ level 1 ─ norm, SiLU, conv ─ images
    ```

    The middle is two residual blocks with attention between, a level `blocks` + 1 residual blocks (with attention where
    asked for).

    Args:
        factor: Pixels that a cell of the grid has along a side: the tokenizer's finest factor; a power of two.
        width: Base number of channels.
        multipliers: The channels of each level, in units of `width`: one for each of the factors 1, 2, 4, … up to
            `factor`, in this order.
        blocks: Residual blocks of each level, less one.
        attention_factors: The factors of the levels that have attention after each block.
        channels: Width of the vectors.
        dropout: Probability of dropout in the residual blocks.
        middle_attention: Whether the middle has attention.
        norm_groups: Groups of each norm, or as many as divide both this number and the width.

    Raises:
        UserError: The factor is no power of two, or `multipliers` or `attention_factors` do not fit it.
    """

    def __init__(
        self,
        factor: int = 8,
        width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2),
        blocks: int = 2,
        attention_factors: Sequence[int] = (8,),
        channels: int = 256,
        dropout: float = 0.0,
        middle_attention: bool = True,
        norm_groups: int = GROUPS,
    ) -> None:
        super().__init__()
        self._factor = factor
        self._channels = channels
        levels = plan_levels(factor, width, multipliers, attention_factors)[::-1]
        before = [levels[0].channels] + [level.channels for level in levels[:-1]]
        self.stem = nn.Conv2d(channels, levels[0].channels, 3, padding=1)
        self.middle = AttentiveResidual(levels[0].channels, dropout, middle_attention, norm_groups)
        self.levels = nn.ModuleList(
            ResidualStage(in_channels, level.channels, blocks + 1, level.attention, dropout, norm_groups)
            for in_channels, level in zip(before, levels, strict=True)
        )
        self.upsamples = nn.ModuleList(Upsample(level.channels) for level in levels[:-1])
        self.norm = group_norm_silu(levels[-1].channels, norm_groups)
        self.out = nn.Conv2d(levels[-1].channels, 3, 3, padding=1)

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def factor(self) -> int:
        return self._factor

    @property
    def last_layer(self) -> Tensor:
        return self.out.weight

    def forward(self, vectors: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 _ _"]:
        h = self.middle(self.stem(vectors))
        for index, level in enumerate(self.levels):
            h = level(self.upsamples[index - 1](h) if index else h)
        return self.out(self.norm(h))


class PositionalDecoder(Decoder):
    """Adds a term to the vectors that says where each of them lies, and hands on to another decoder.

    The term is the sine of a learned linear map of the coordinates (Fourier features, as in
    https://arxiv.org/abs/2011.13775) and, if learned, an embedding of the row plus one of the column. DQ-VAE's official
    implementation adds it; its paper does not mention it.

    Args:
        decoder: What makes images of the sum.
        grid: Rows, and columns, that have a learned embedding: the side of the finest grid in training. A grid of
            another size takes embeddings in between.
        learned: Whether there are learned embeddings besides the Fourier features.
    """

    def __init__(self, decoder: Decoder, grid: int, learned: bool = True) -> None:
        super().__init__()
        self.decoder = decoder
        self.coordinates = nn.Conv2d(2, decoder.channels, 1)
        bound = 3 / math.sqrt(2)  # the range of CIPS's first layer: several periods over the picture
        nn.init.uniform_(self.coordinates.weight, -bound, bound)
        if grid < 1:
            raise UserError(f"grid must be at least 1, not {grid}")
        shape = (grid, decoder.channels)
        self.rows = nn.Parameter(0.02 * torch.randn(shape)) if learned else None
        self.columns = nn.Parameter(0.02 * torch.randn(shape)) if learned else None

    @property
    def channels(self) -> int:
        return self.decoder.channels

    @property
    def factor(self) -> int:
        return self.decoder.factor

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.last_layer

    def forward(self, vectors: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 _ _"]:
        return self.decoder(vectors + self.position_term(*vectors.shape[2:]))

    def position_term(self, height: int, width: int) -> Float[Tensor, "1 c H W"]:
        """What is added to the vectors of a grid of this size; coordinates reach from -1 to 1 along each side."""
        weight = self.coordinates.weight
        ys, xs = (torch.linspace(-1, 1, side, device=weight.device, dtype=weight.dtype) for side in (height, width))
        grid = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)])
        term = torch.sin(self.coordinates(grid[None]))
        if self.rows is not None and self.columns is not None:
            term = term + _stretch(self.rows, height)[None, :, :, None] + _stretch(self.columns, width)[None, :, None]
        return term


class PixelShuffleDecoder(Decoder):
    """A light decoder for small computers: residual blocks on the finest grid, then each cell becomes its pixels.

    ```
    vectors ─ conv ─ blocks ─ norm, SiLU, conv to 3·factor² channels ─ pixel shuffle ─ images
    ```

    Args:
        factor: Pixels that a cell of the grid has along a side: the tokenizer's finest factor; any number.
        channels: Width of the vectors.
        width: Channels inside.
        blocks: Residual blocks.
        dropout: Probability of dropout in the residual blocks.
    """

    def __init__(
        self, factor: int, channels: int = 128, width: int = 128, blocks: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if factor < 1:
            raise UserError(f"factor must be at least 1, not {factor}")
        self._factor = factor
        self._channels = channels
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.level = ResidualStage(width, width, blocks, dropout=dropout)
        self.norm = group_norm_silu(width)
        self.out = nn.Conv2d(width, 3 * factor**2, 3, padding=1)

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def factor(self) -> int:
        return self._factor

    @property
    def last_layer(self) -> Tensor:
        return self.out.weight

    def forward(self, vectors: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 _ _"]:
        h = self.out(self.norm(self.level(self.stem(vectors))))
        return F.pixel_shuffle(h, self._factor)


def _stretch(embeddings: Float[Tensor, "g c"], side: int) -> Float[Tensor, "c s"]:
    """The embeddings of a side of another length, interpolated so that the ends stay the ends."""
    if side == embeddings.shape[0]:
        return embeddings.T
    return F.interpolate(embeddings.T[None], size=side, mode="linear", align_corners=True)[0]
