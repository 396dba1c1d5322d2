"""What a prior's transformers are: models that read packed sequences in training, and one code of each image a step in
sampling.

Axis letters: b image, t code (packed over the batch), s step of a sequence, d width.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltok.arguments import KeepsArguments
from vltok.nn.attention import Packing
from vltok.nn.cached_attention import flash_decodes, flash_decoding, masked_attention

# Attention over a cache reads whole spans of this many steps.
SPAN = 64
SPAN_OF_CPU = 16

#: What is read of a cache, run by run of its rows: how many rows, and how many steps of each.
Reach = tuple[tuple[int, int], ...]


class KeyValueCache:
    """The keys and values of every layer for a batch whose images each stand at a step of their own.

    Args:
        layers: What each layer keeps, `[b 2·heads s d]`: the keys of all heads, then their values. A model without
            attention keeps tensors of its own, `[b …]`, and needs no `attending`.
        repeatable: Whether all that a step does to it is to write what follows from the step's inputs into places of
            these tensors, so that a step may be taken again. On CUDA such steps are captured as graphs.
    """

    def __init__(self, layers: list[Float[Tensor, "b ..."]], repeatable: bool = False) -> None:
        self.layers = layers
        self.repeatable = repeatable
        self._reach: Reach = ()
        self._views: list[list[tuple[Tensor, Tensor]]] = []

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Keep some images alone, layer by layer, so that never two whole caches exist."""
        self._views.clear()
        for index, layer in enumerate(self.layers):
            kept = torch.empty_like(layer[: len(rows)])  # laid out in memory as before
            self.layers[index] = kept.copy_(layer[rows])

    def reorder(self, order: Sequence[int]) -> None:
        """Let images change rows. Those that stay are not touched.

        Args:
            order: The row in which each image stood that stands in a row now.
        """
        changes = [(place, row) for place, row in enumerate(order) if place != row]
        if changes:
            places, rows = torch.tensor(changes, device=self.layers[0].device).unbind(1)
            for layer in self.layers:
                layer[places] = layer[rows]

    def attending(self, cursors: Cursors) -> list[Callable[[Float[Tensor, "b heads d"]], Float[Tensor, "b heads d"]]]:
        """What computes each layer's attention in a step, given its queries, after the step's keys and values have been
        written."""
        first = self.layers[0]
        if flash_decodes(first.device.type, first.dtype, first.shape[-1]):
            span = max(span for _, span in cursors.reach)
            used = (cursors.steps + 1).clamp(max=span).int()
            return [
                functools.partial(
                    flash_decoding,
                    keys=keys.transpose(1, 2).flatten(0, 1),
                    values=values.transpose(1, 2).flatten(0, 1),
                    used=used,
                    span=span,
                )
                for ((keys, values),) in self._runs(((len(first), first.shape[2]),))
            ]
        masks = []
        for (_, span), steps in zip(
            cursors.reach, cursors.steps.split([rows for rows, _ in cursors.reach]), strict=True
        ):
            visible = torch.arange(span, device=first.device) <= steps[:, None]
            masks.append(first.new_zeros(()).where(visible, -torch.inf)[:, None, None])
        return [functools.partial(masked_attention, runs=runs, masks=masks) for runs in self._runs(cursors.reach)]

    def _runs(self, reach: Reach) -> list[list[tuple[Float[Tensor, "_ heads _ d"], Float[Tensor, "_ heads _ d"]]]]:
        """The keys and the values of each layer's runs of rows.

        They stay the same for many steps, and are made once: while weights stream through the processor's caches, a
        call costs more than what it does.
        """
        if not self._views or reach != self._reach:
            self._reach = reach
            self._views = []
            for layer in self.layers:
                runs = []
                for (_, span), rows in zip(reach, layer.split([rows for rows, _ in reach]), strict=True):
                    keys, values = rows[:, :, :span].chunk(2, dim=1)
                    runs.append((keys, values))
                self._views.append(runs)
        return self._views


@dataclass(frozen=True, eq=False)
class Cursors:
    """Where each image of a stepwise batch stands.

    Attributes:
        steps: The step that each image takes now, `[b]`.
        images: 0 to b - 1, `[b]`.
        reach: How much of the cache is read.
    """

    steps: Int[Tensor, " b"]
    images: Int[Tensor, " b"]
    reach: Reach

    @classmethod
    def at(cls, steps: Int[Tensor, " b"], furthest: int, longest: int) -> Cursors:
        """Cursors at some steps, none beyond `furthest`, which is known without asking the device."""
        return cls.within(steps, ((len(steps), span_of(furthest, longest, steps.device)),))

    @classmethod
    def within(cls, steps: Int[Tensor, " b"], reach: Reach) -> Cursors:
        """Cursors at some steps, which lie within what is read."""
        return cls(steps, torch.arange(len(steps), device=steps.device), reach)


def span_of(furthest: int, longest: int, device: torch.device) -> int:
    """How many steps of a cache are read where no image stands beyond `furthest`: of different ones there are few on
    GPUs, where every shape is prepared anew."""
    span = SPAN_OF_CPU if device.type == "cpu" else SPAN
    return min(longest, math.ceil((furthest + 1) / span) * span)


class SequenceModel(KeepsArguments, nn.Module, ABC):
    """Hidden states of packed sequences, each from those before it in its image and itself.

    Its input is added up by the prior. Its linear layers may be of lower precision than what it reads and gives, as
    when sampling in bfloat16. It draws its own fresh weights.

    Attributes:
        width: Width of what it reads and gives, d.
        columns: Those of the one grid over whose rows it can walk; None where it walks over any codes.
        head_norm: The norm, made of a width, of the kind that those heads have which read what it gives.
    """

    width: int
    columns: int | None = None
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
        weight, heads = block.query_key_value.weight, 2 * block.heads
        width = 2 * weight.shape[1] // heads
        if flash_decodes(weight.device.type, weight.dtype, width):  # which reads packed sequences
            layer = torch.zeros(batch, longest, heads, width, dtype=weight.dtype, device=weight.device).transpose(1, 2)
        else:
            layer = torch.zeros(batch, heads, longest, width, dtype=weight.dtype, device=weight.device)
        layers.append(layer)
    return KeyValueCache(layers, repeatable=True)


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
    for block, layer, attend in zip(blocks, cache.layers, cache.attending(cursors), strict=True):
        hidden = block.step(hidden, layer, attend, cursors, *given)
    return hidden
