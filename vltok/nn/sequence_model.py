"""What a prior's transformers are: models that read packed sequences in training, and one code of each image a step in
sampling.

Axis letters: b image, t code (packed over the batch), s step of a sequence, d width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltok.arguments import KeepsArguments
from vltok.nn.attention import Packing

# Attention over a cache reads whole spans of this many steps, so that few different shapes occur.
SPAN = 64


class KeyValueCache:
    """The keys and values of every layer for a batch whose images each stand at a step of their own.

    Args:
        layers: What each layer keeps, `[b 2·heads s d]`: the keys of all heads, then their values. A model without
            attention keeps tensors of its own, `[b …]`, and needs no `views`.
    """

    def __init__(self, layers: list[Float[Tensor, "b ..."]]) -> None:
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


class SequenceModel(KeepsArguments, nn.Module, ABC):
    """Hidden states of packed sequences, each from those before it in its image and itself.

    Its input is added up by the prior. Its linear layers may be of lower precision than what it reads and gives, as
    when sampling in bfloat16. It draws its own fresh weights.

    Attributes:
        width: Width of what it reads and gives, d.
        head_norm: The norm, made of a width, of the kind that those heads have which read what it gives.
    """

    width: int
    head_norm: ClassVar[type[nn.Module]] = nn.LayerNorm

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "t d"], packing: Packing) -> Float[Tensor, "t d"]:
        """The hidden states of packed sequences."""

    @abstractmethod
    def cache(self, batch: int, longest: int) -> KeyValueCache:
        """An empty cache for so many images of at most so many steps."""

    @abstractmethod
    def step(self, hidden: Float[Tensor, "b d"], cache: KeyValueCache, cursors: Cursors) -> Float[Tensor, "b d"]:
        """The hidden states of one code of each image, which joins the cache. No gradient flows.

        An image that stands at step 0 begins anew, whatever the cache still holds of another one in its row.
        """


def through_blocks(
    blocks: Iterable[nn.Module], hidden: Float[Tensor, "t d"], *given: Any, recompute: bool
) -> Float[Tensor, "t d"]:
    """The hidden states after one block after another.

    Args:
        blocks: The blocks of a transformer.
        hidden: What the first one reads.
        given: What all of them are given besides.
        recompute: Whether the backward pass computes each block again instead of keeping its activations.
    """
    for block in blocks:
        hidden = checkpoint(block, hidden, *given, use_reentrant=False) if recompute else block(hidden, *given)
    return hidden


def empty_cache(blocks: Iterable[Any], batch: int, longest: int) -> KeyValueCache:
    """An empty cache for so many images of at most so many steps, in the numbers of the blocks' matrices."""
    layers = []
    for block in blocks:
        weight = block.query_key_value.weight
        shape = batch, 2 * block.heads, longest, weight.shape[1] // block.heads
        layers.append(torch.zeros(shape, dtype=weight.dtype, device=weight.device))
    return KeyValueCache(layers)


def step_through_blocks(
    blocks: Iterable[Any], hidden: Float[Tensor, "b d"], cache: KeyValueCache, cursors: Cursors, *given: Any
) -> Float[Tensor, "b d"]:
    """The hidden states of one code of each image after one block after another; the code joins the cache.

    Args:
        blocks: The blocks of a transformer.
        hidden: What the first one reads.
        cache: What is kept of the codes before.
        cursors: Where the images stand.
        given: What all blocks are given besides.
    """
    views = cache.views(cursors.span)
    mask = cache.layers[0].new_zeros(()).where(cursors.visible, -torch.inf)
    for block, layer, (keys, values) in zip(blocks, cache.layers, views, strict=True):
        hidden = block.step(hidden, layer, keys, values, cursors, mask, *given)
    return hidden
