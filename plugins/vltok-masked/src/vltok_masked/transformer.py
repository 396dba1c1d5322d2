"""A transformer over packed codes in which every code sees all codes of its image.

Axis letters: t code (packed over the batch), d model width.
"""

from abc import ABC, abstractmethod
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import final

from vltok.errors import UserError
from vltok.nn.attention import Packing, packed_attention
from vltok.nn.sequence_model import through_blocks
from vltok.nn.transformer import Block


class BidirectionalModel(nn.Module, ABC):
    """Hidden states of packed codes, each from all codes of its image.

    Attributes:
        width: Width of what it reads and gives, d.
    """

    width: int

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing) -> Float[Tensor, "t d"]:
        """The hidden states of packed codes."""


@final
class Bidirectional(BidirectionalModel):
    """A stack of vltok's blocks that look ahead. No norm follows the last one.

    Args:
        width: Model width d, a multiple of `heads`.
        heads: Attention heads.
        layers: Number of blocks.
        dropout: Probability with which the outputs of branches, and attention weights, are dropped.
        checkpointing: Recompute blocks in the backward pass: less memory, a third more time.

    Raises:
        UserError: A width that the heads do not divide.
    """

    def __init__(
        self, width: int = 768, heads: int = 12, layers: int = 24, dropout: float = 0.1, checkpointing: bool = False
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(f"width must be a multiple of heads; {width} is none of {heads}")
        self.width = width
        self.heads = heads
        self.checkpointing = checkpointing
        attend = partial(packed_attention, causal=False)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, dropout, attend) for _ in range(layers))

    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing) -> Float[Tensor, "t d"]:
        """The hidden states of packed codes."""
        return through_blocks(self.blocks, hidden, packing, recompute=self.checkpointing and self.training)
