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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltok.errors import UserError
from vltok.nn.attention import Packing, packed_causal_attention

# Attention over a cache reads whole spans of this many steps, so that few different shapes occur.
SPAN = 64


class KeyValueCache:
    """The keys and values of every layer for a batch whose images each stand at a step of their own.

    Args:
        layers: What each layer keeps, `[b 2·heads s d]`: the keys of all heads, then their values.
    """

    def __init__(self, layers: list[Float[Tensor, "b _ s d"]]) -> None:
        self.layers = layers
        self._span = 0
        self._views: list[tuple[Tensor, Tensor]] = []

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Keep some images alone, layer by layer, so that never two whole caches exist."""
        self._views.clear()
        for index, layer in enumerate(self.layers):
            self.layers[index] = layer[rows]

    def views(self, span: int) -> list[tuple[Float[Tensor, "b heads _ d"], Float[Tensor, "b heads _ d"]]]:
        """The keys and the values of each layer's first steps.

        They stay the same for many steps, and are made once: while weights stream through the processor's caches, a
        call costs more than what it does.
        """
        if not self._views or span != self._span:
            self._span = span
            self._views = []
            for layer in self.layers:
                keys, values = layer[:, :, :span].chunk(2, dim=1)
                self._views.append((keys, values))
        return self._views


@dataclass(frozen=True, eq=False)
class Cursors:
    """Where each image of a stepwise batch stands.

    Attributes:
        steps: The step that each image takes now, `[b]`.
        images: 0 to b - 1, `[b]`.
        visible: The steps that it may look back to, itself included, `[b 1 1 s]`.
        span: How many steps of the cache are read.
    """

    steps: Int[Tensor, " b"]
    images: Int[Tensor, " b"]
    visible: Bool[Tensor, "b 1 1 s"]
    span: int

    @classmethod
    def at(cls, steps: Int[Tensor, " b"], furthest: int, longest: int) -> Cursors:
        """Cursors at some steps, none beyond `furthest`, which is known without asking the device."""
        span = min(longest, math.ceil((furthest + 1) / SPAN) * SPAN)
        visible = torch.arange(span, device=steps.device) <= steps[:, None]
        return cls(steps, torch.arange(len(steps), device=steps.device), visible[:, None, None], span)


class Block(nn.Module):
    """A pre-LN transformer block.

    Args:
        width: Model width d, a multiple of `heads`.
        heads: Attention heads.
        dropout: Probability with which attention weights and the outputs of both branches are dropped.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attend = packed_causal_attention
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, 4 * width)
        self.feedforward_out = nn.Linear(4 * width, width)

    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing) -> Float[Tensor, "t d"]:
        """Every code sees itself and the earlier ones of its image."""
        dropout = self.dropout if self.training else 0.0
        query, key, value = self._project(hidden).unbind(1)
        attended = self.attend(query, key, value, packing, dropout)
        hidden = hidden + F.dropout(_linear(self.attention_out, attended.flatten(1)), dropout)
        return hidden + F.dropout(self._feedforward(hidden), dropout)

    def step(
        self,
        hidden: Float[Tensor, "b d"],
        cache: Float[Tensor, "b _ longest _"],
        keys: Float[Tensor, "b heads s _"],
        values: Float[Tensor, "b heads s _"],
        cursors: Cursors,
        mask: Float[Tensor, "b 1 1 s"],
    ) -> Float[Tensor, "b d"]:
        """One code of each image, which sees itself and what the cache holds; it is added to the cache. No dropout."""
        projected = _linear(self.query_key_value, self.attention_norm(hidden)).unflatten(1, (3 * self.heads, -1))
        query, key_value = projected.split((self.heads, 2 * self.heads), dim=1)
        cache[cursors.images, :, cursors.steps] = key_value
        attended = F.scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=mask)
        hidden = hidden + _linear(self.attention_out, attended.flatten(1))
        return hidden + self._feedforward(hidden)

    def _project(self, hidden: Tensor) -> Float[Tensor, "n 3 heads _"]:
        projected = _linear(self.query_key_value, self.attention_norm(hidden))
        return projected.unflatten(1, (3, self.heads, -1))

    def _feedforward(self, hidden: Tensor) -> Tensor:
        inner = F.gelu(_linear(self.feedforward_in, self.feedforward_norm(hidden)))
        return _linear(self.feedforward_out, inner)


class Transformer(nn.Module):
    """A stack of blocks. Its input is added up by the caller, and no norm follows its last block.

    Args:
        width: Model width d, a multiple of `heads`.
        heads: Attention heads.
        layers: Number of blocks.
        dropout: Probability with which attention weights and the outputs of branches are dropped.
        checkpointing: Recompute each block in the backward pass instead of keeping its activations.

    Raises:
        UserError: A width that the heads do not divide.
    """

    def __init__(self, width: int, heads: int, layers: int, dropout: float, checkpointing: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width must be a multiple of heads; {width} is none of {heads}")
        self.width = width
        self.heads = heads
        self.checkpointing = checkpointing
        # each a Block, which a list of modules does not say
        self.blocks: Iterable[Any] = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))

    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing) -> Float[Tensor, "t d"]:
        """The hidden states of packed sequences."""
        for block in self.blocks:
            if self.checkpointing and self.training:
                hidden = checkpoint(block, hidden, packing, use_reentrant=False)
            else:
                hidden = block(hidden, packing)
        return hidden

    def compile_blocks(self) -> None:
        """Compile each block with torch.compile, all but its attention: that has kernels of its own, and a packing is
        another one in every batch, for which nothing should be compiled anew."""
        for block in self.blocks:
            block.attend = torch.compiler.disable(packed_causal_attention)
            block.compile(dynamic=True)

    def cache(self, batch: int, longest: int) -> KeyValueCache:
        """An empty cache for so many images of at most so many steps."""

        shape = (batch, 2 * self.heads, longest, self.width // self.heads)
        return KeyValueCache([block.query_key_value.weight.new_zeros(shape) for block in self.blocks])

    @torch.no_grad()
    def step(self, hidden: Float[Tensor, "b d"], cache: KeyValueCache, cursors: Cursors) -> Float[Tensor, "b d"]:
        """The hidden states of one code of each image, which joins the cache. No gradient flows."""
        views = cache.views(cursors.span)
        mask = cache.layers[0].new_zeros(()).where(cursors.visible, -torch.inf)
        for block, layer, (keys, values) in zip(self.blocks, cache.layers, views, strict=True):
            hidden = block.step(hidden, layer, keys, values, cursors, mask)
        return hidden


def initialise(model: nn.Module) -> None:
    """GPT-2's initialisation: N(0, 0.02²) everywhere, and less for what blocks add to the residual stream.

    The last matrices of a block's branches get 0.02 / √(2 · blocks), so that the stream does not grow with depth.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        for matrix in (block.attention_out, block.feedforward_out):
            nn.init.normal_(matrix.weight, std=0.02 / math.sqrt(2 * len(blocks)))


def _linear(layer: nn.Linear, hidden: Tensor) -> Tensor:
    # Matrices may be of lower precision than the residual stream, as when sampling in bfloat16.
    return layer(hidden.to(layer.weight.dtype))
