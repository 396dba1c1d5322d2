"""A causal transformer that reads packed sequences in training, and one code of each image a step in sampling.

```
x ─┬─ LayerNorm ─ attention ─ dropout ─(+)─┬─ LayerNorm ─ linear ─ GELU ─ linear ─ dropout ─(+)─
   └───────────────────────────────────┘   └─────────────────────────────────────────────┘
```

The pre-LN block of GPT-2 (Radford et al., 2019), which section 4 of the paper takes over.
Axis letters: b image, t code (packed over the batch), s step of a sequence, d model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import final  # that of typing tells jsonargparse nothing before Python 3.11

from vltok.errors import UserError
from vltok.nn.attention import Attending, Packing, packed_attention
from vltok.nn.linear import Linear
from vltok.nn.sequence_model import (
    Cursors,
    KeyValueCache,
    SequenceModel,
    empty_cache,
    step_through_blocks,
    through_blocks,
)


class Block(Attending):
    """A pre-LN transformer block.

    Args:
        width: Model width d, a multiple of `heads`.
        heads: Attention heads.
        dropout: Probability with which the outputs of both branches are dropped.
        attention_dropout: Probability with which attention weights are dropped.
        attend: Computes attention: `packed_attention`, which is causal unless told otherwise.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        attention_dropout: float,
        attend: Callable[..., Tensor] = packed_attention,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.attend = attend
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = Linear(width, 3 * width)
        self.attention_out = Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward_in = Linear(width, 4 * width)
        self.feedforward_out = Linear(4 * width, width)

    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing) -> Float[Tensor, "t d"]:
        """Every code sees itself and the earlier ones of its image, where attention is causal."""
        dropout, attention_dropout = (self.dropout, self.attention_dropout) if self.training else (0.0, 0.0)
        query, key, value = self._project(hidden).unbind(1)
        attended = self.attend(query, key, value, packing, attention_dropout, self.kernel)
        hidden = hidden + F.dropout(self.attention_out(attended.flatten(1)), dropout)
        return hidden + F.dropout(self._feedforward(hidden), dropout)

    def step(
        self,
        hidden: Float[Tensor, "b d"],
        cache: Float[Tensor, "b _ longest _"],
        attend: Callable[[Tensor], Tensor],
        cursors: Cursors,
    ) -> Float[Tensor, "b d"]:
        """One code of each image, which sees itself and what the cache holds; it is added to the cache. No dropout."""
        projected = self.query_key_value(self.attention_norm(hidden)).unflatten(1, (3 * self.heads, -1))
        query, key_value = projected.split((self.heads, 2 * self.heads), dim=1)
        cache[cursors.images, :, cursors.steps] = key_value
        hidden = hidden + self.attention_out(attend(query).flatten(1))
        return hidden + self._feedforward(hidden)

    def _project(self, hidden: Tensor) -> Float[Tensor, "n 3 heads _"]:
        projected = self.query_key_value(self.attention_norm(hidden))
        return projected.unflatten(1, (3, self.heads, -1))

    def _feedforward(self, hidden: Tensor) -> Tensor:
        inner = F.gelu(self.feedforward_in(self.feedforward_norm(hidden)))
        return self.feedforward_out(inner)


@final
class Transformer(SequenceModel):
    """A stack of blocks. No norm follows its last one.

    Args:
        width: Model width d, a multiple of `heads`.
        heads: Attention heads.
        layers: Number of blocks.
        dropout: Probability with which the outputs of branches are dropped.
        checkpointing: Recompute blocks in the backward pass: less memory, a third more time.
        compile: Compile the blocks with torch.compile: minutes once, then faster training.
        attention_dropout: Probability with which attention weights are dropped; that of `dropout` by default. At 0,
            faster kernels serve in half precision.

    Raises:
        UserError: A width that the heads do not divide.
    """

    def __init__(
        self,
        width: int = 1024,
        heads: int = 16,
        layers: int = 24,
        dropout: float = 0.1,
        checkpointing: bool = False,
        compile: bool = False,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        if attention_dropout is None:
            attention_dropout = dropout
        if heads < 1 or width % heads:
            raise UserError(f"width must be a multiple of heads; {width} is none of {heads}")
        self.width = width
        self.heads = heads
        self.checkpointing = checkpointing
        # each a Block, which a list of modules does not say
        self.blocks: Iterable[Any] = nn.ModuleList(
            Block(width, heads, dropout, attention_dropout) for _ in range(layers)
        )
        if compile:
            self._compile()

    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing) -> Float[Tensor, "t d"]:
        """The hidden states of packed sequences."""
        return through_blocks(self.blocks, hidden, packing, recompute=self.checkpointing and self.training)

    def cache(self, batch: int, longest: int) -> KeyValueCache:
        """An empty cache for so many images of at most so many steps."""
        return empty_cache(self.blocks, batch, longest)

    @torch.no_grad()
    def step(self, hidden: Float[Tensor, "b d"], cache: KeyValueCache, cursors: Cursors) -> Float[Tensor, "b d"]:
        """The hidden states of one code of each image, which joins the cache. No gradient flows."""
        return step_through_blocks(self.blocks, hidden, cache, cursors)

    def _compile(self) -> None:
        # all but attention: that has kernels of its own, and a packing is another one in every batch, for which
        # nothing should be compiled anew
        for block in self.blocks:
            block.attend = torch.compiler.disable(block.attend)
            block.compile(dynamic=True)


def initialise(model: nn.Module) -> None:
    """GPT-2's initialisation: N(0, 0.02²) everywhere, and less for what blocks add to the residual stream.

    The last matrices of a block's branches get 0.02 / √(2 · blocks), so that the stream does not grow with depth.
    Sequence models of others keep the weights that they have.
    """
    modules = list(_initialised(model))
    for module in modules:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    blocks = [module for module in modules if isinstance(module, Block)]
    for block in blocks:
        for matrix in (block.attention_out, block.feedforward_out):
            nn.init.normal_(matrix.weight, std=0.02 / math.sqrt(2 * len(blocks)))


def _initialised(model: nn.Module) -> Iterator[nn.Module]:
    yield model
    for child in model.children():
        if isinstance(child, Transformer) or not isinstance(child, SequenceModel):
            yield from _initialised(child)
