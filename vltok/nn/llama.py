"""The transformer of Llama (Touvron et al., 2023, https://arxiv.org/abs/2302.13971) over the codes of a grid.

```
x ─┬─ RMSNorm ─ attention ─ dropout ─(+)─┬─ RMSNorm ─ SwiGLU ─ dropout ─(+)─
   └─────────────────────────────────────┘  └─────────────────────────────┘
```

Attention knows places by turning queries and keys: by the step as in Llama, or half of each head by the row and half by
the column of a grid, as in LlamaGen (Sun et al., 2024, https://arxiv.org/abs/2406.06525).
Axis letters: b image, t code (packed over the batch), s step of a sequence, d model width, h half the width of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.devices import widest
from vltok.errors import UserError, whole_number
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


class RMSNorm(nn.RMSNorm):
    """Llama's norm of a width, as LlamaGen has it."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5)


class SwiGLU(nn.Module):
    """A feed-forward layer of which one half decides how much of the other passes (https://arxiv.org/abs/2002.05202).

    Args:
        width: Width of what it reads and gives.
        inner: Width of each half.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = Linear(width, inner, bias=False)
        self.value = Linear(width, inner, bias=False)
        self.out = Linear(inner, width, bias=False)

    def forward(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """What passes."""
        return self.out(F.silu(self.gate(hidden)) * self.value(hidden))


#: The cosines and the sines of the angles by which each code's vectors are turned, `[n h]` each.
Turns = tuple[Float[Tensor, "n h"], Float[Tensor, "n h"]]


@dataclass(frozen=True)
class StepRotation:
    """Angles that tell at which step a code stands (rotary embeddings, https://arxiv.org/abs/2104.09864).

    Attributes:
        width: Width of a head, an even number.
        base: How much slower the slowest angle turns than the fastest.
    """

    width: int
    base: float

    def __call__(self, steps: Int[Tensor, " n"]) -> Turns:
        """The turns of codes that stand at some steps."""
        angles = _angles(steps, self.width, self.base)
        return angles.cos().float(), angles.sin().float()


@dataclass(frozen=True)
class GridRotation:
    """Angles that tell a code's row, in one half of a head, and its column, in the other.

    Step 0 is the start of an image, which has no place: what it asks, and what it is found by, becomes zero.

    Attributes:
        columns: Those of the grid on which codes stand row by row.
        width: Width of a head, a multiple of 4.
        base: How much slower the slowest angle turns than the fastest.
    """

    columns: int
    width: int
    base: float

    def __call__(self, steps: Int[Tensor, " n"]) -> Turns:
        """The turns of codes that stand at some steps."""
        places = (steps - 1).clamp(min=0)
        halves = (places // self.columns, places % self.columns)
        angles = torch.cat([_angles(half, self.width // 2, self.base) for half in halves], dim=1)
        placed = (steps > 0)[:, None]
        return angles.cos().float() * placed, angles.sin().float() * placed


def turned(vectors: Float[Tensor, "n heads _"], turns: Turns) -> Float[Tensor, "n heads _"]:
    """Vectors of which each pair of numbers is turned by an angle."""
    cosines, sines = (each[:, None] for each in turns)
    first, second = vectors.float().unflatten(2, (-1, 2)).unbind(3)
    pairs = torch.stack([first * cosines - second * sines, second * cosines + first * sines], dim=3)
    return pairs.flatten(2).to(vectors.dtype)


def _angles(places: Int[Tensor, " n"], width: int, base: float) -> Float[Tensor, "n _"]:
    # computed anew each time: a buffer would lose its digits in a model of bfloat16; in double precision, since the
    # last digit of a sine in single precision differs between CPUs, and files that were written under a prior are read
    # on others
    exponents = torch.arange(0, width, 2, device=places.device, dtype=widest(places.device)) / width
    return places[:, None] * base**-exponents


class LlamaBlock(Attending):
    """A block of attention and SwiGLU.

    Args:
        width: Model width d, a multiple of `heads`.
        heads: Attention heads.
        feedforward: Width of each half of SwiGLU.
        dropout: Probability with which the outputs of both branches are dropped.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = RMSNorm(width)
        self.query_key_value = Linear(width, 3 * width, bias=False)
        self.attention_out = Linear(width, width, bias=False)
        self.feedforward_norm = RMSNorm(width)
        self.feedforward = SwiGLU(width, feedforward)

    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing, turns: Turns) -> Float[Tensor, "t d"]:
        """Every code sees itself and the earlier ones of its image."""
        dropout = self.dropout if self.training else 0.0
        query, key, value = self._project(hidden, turns)
        attended = packed_attention(query, key, value, packing, kernel=self.kernel)
        hidden = hidden + F.dropout(self.attention_out(attended.flatten(1)), dropout)
        return hidden + F.dropout(self.feedforward(self.feedforward_norm(hidden)), dropout)

    def step(
        self,
        hidden: Float[Tensor, "b d"],
        cache: Float[Tensor, "b _ longest _"],
        attend: Callable[[Tensor], Tensor],
        cursors: Cursors,
        turns: Turns,
    ) -> Float[Tensor, "b d"]:
        """One code of each image, which sees itself and what the cache holds; it is added to the cache. No dropout."""
        query, key, value = self._project(hidden, turns)
        cache[cursors.images, :, cursors.steps] = torch.cat([key, value], dim=1)
        hidden = hidden + self.attention_out(attend(query).flatten(1))
        return hidden + self.feedforward(self.feedforward_norm(hidden))

    def _project(
        self, hidden: Float[Tensor, "n d"], turns: Turns
    ) -> tuple[Float[Tensor, "n heads _"], Float[Tensor, "n heads _"], Float[Tensor, "n heads _"]]:
        projected = self.query_key_value(self.attention_norm(hidden))
        query, key, value = projected.unflatten(1, (3, self.heads, -1)).unbind(1)
        return turned(query, turns), turned(key, turns), value


class Llama(SequenceModel):
    """Llama's transformer. No norm follows its last block.

    Args:
        columns: Those of the grid of codes, where they stand row by row behind a start; None tells places by steps.
        width: Model width d, a multiple of four times `heads`.
        heads: Attention heads.
        layers: Number of blocks.
        feedforward: Width of each half of SwiGLU; by default two thirds of four times the width, rounded up to 256.
        dropout: Probability with which the outputs of branches are dropped.
        base: How much slower the slowest angle of a place turns than the fastest.
        checkpointing: Recompute blocks in the backward pass: less memory, a third more time.

    Raises:
        UserError: A width that is no such multiple, or a grid without columns.
    """

    head_norm = RMSNorm

    def __init__(
        self,
        columns: int | None = None,
        width: int = 1024,
        heads: int = 16,
        layers: int = 24,
        feedforward: int | None = None,
        dropout: float = 0.1,
        base: float = 10000.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if heads < 1 or width % (4 * heads):
            raise UserError(f"width must be a multiple of four times heads; {width} is none of 4 · {heads}")
        if columns is not None:
            whole_number("columns", columns, 1)
        inner = -(-(8 * width // 3) // 256) * 256 if feedforward is None else feedforward
        self.width = width
        self.heads = heads
        self.columns = columns
        self.checkpointing = checkpointing
        places = StepRotation if columns is None else functools.partial(GridRotation, columns)
        self.rotation = places(width // heads, base)
        # each a LlamaBlock, which a list of modules does not say
        self.blocks: Iterable[Any] = nn.ModuleList(LlamaBlock(width, heads, inner, dropout) for _ in range(layers))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing) -> Float[Tensor, "t d"]:
        """The hidden states of packed sequences."""
        recompute = self.checkpointing and self.training
        return through_blocks(self.blocks, hidden, packing, self.rotation(packing.steps), recompute=recompute)

    def cache(self, batch: int, longest: int) -> KeyValueCache:
        """An empty cache for so many images of at most so many steps."""
        return empty_cache(self.blocks, batch, longest)

    @torch.no_grad()
    def step(self, hidden: Float[Tensor, "b d"], cache: KeyValueCache, cursors: Cursors) -> Float[Tensor, "b d"]:
        """The hidden states of one code of each image, which joins the cache. No gradient flows."""
        return step_through_blocks(self.blocks, hidden, cache, cursors, self.rotation(cursors.steps))
