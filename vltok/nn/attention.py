"""Causal attention over packed sequences: one function, and one backend for each kind of device.

Axis letters: b image, t code (packed over the batch), d width of a head.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Packing:
    """Where the images of a batch lie in a packed sequence. Made once a batch and shared by every layer.

    The lengths are read on the host, which attention kernels need; on CUDA that is the only synchronisation of a
    forward pass.

    Args:
        lengths: The number of codes of each image, `[b]`.
    """

    def __init__(self, lengths: Int[Tensor, " b"]) -> None:
        self.lengths: list[int] = lengths.tolist()
        self.longest = max(self.lengths, default=0)
        self.total = sum(self.lengths)
        #: Where each image starts, with the end of the last: `[b+1]`, int32.
        self.cu_seqlens = F.pad(lengths.cumsum(0), (1, 0)).int()
        image = torch.arange(len(self.lengths), device=lengths.device)
        #: The image of each code, `[t]`.
        self.images = torch.repeat_interleave(image, lengths, output_size=self.total)
        #: The place of each code within its image, `[t]`.
        self.steps = torch.arange(self.total, device=lengths.device) - self.cu_seqlens[:-1].long()[self.images]

    @functools.cached_property
    def padded_slots(self) -> Int[Tensor, " t"] | None:
        """The row of each code in `[b · longest]`; None where all images are equally long, so that nothing moves."""
        if self.longest * len(self.lengths) == self.total:
            return None
        return self.images * self.longest + self.steps

    @functools.cached_property
    def block_diagonal_mask(self) -> Any:
        """xformers' mask that keeps images apart and codes from seeing later ones."""
        return _xformers().attn_bias.BlockDiagonalCausalMask.from_seqlens(self.lengths, device=self.cu_seqlens.device)


Backend = Callable[[Tensor, Tensor, Tensor, Packing, float], Tensor]


def packed_causal_attention(
    query: Float[Tensor, "t heads d"],
    key: Float[Tensor, "t heads d"],
    value: Float[Tensor, "t heads d"],
    packing: Packing,
    dropout: float = 0.0,
) -> Float[Tensor, "t heads d"]:
    """softmax(q kᵀ / √d) v, where each code sees itself and the earlier codes of its own image.

    xformers' memory-efficient kernels serve CUDA where they are installed, PyTorch's own everything else.

    Args:
        query: What each code asks.
        key: What each code is found by.
        value: What each code gives.
        packing: Where images lie.
        dropout: Probability with which an attention weight is dropped.
    """
    return backend(query.device.type, query.dtype, query.shape[-1], dropout > 0)(query, key, value, packing, dropout)


def backend(device: str, dtype: torch.dtype, width: int, dropout: bool = False) -> Backend:
    """The backend for a type of device, such as ``cuda``, a type of numbers and a width of heads."""
    if device == "cuda" and _xformers() is not None and _serves(device, dtype, width, dropout):
        return xformers_attention
    return sdpa_attention


def sdpa_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float) -> Tensor:
    """PyTorch's attention. Its kernels take rectangles, so images are padded on the right here and nowhere else:
    being causal, no code sees the padding behind it, and no mask is needed."""
    slots = packing.padded_slots

    def spread(packed: Tensor) -> Tensor:
        if slots is not None:
            packed = packed.new_zeros(len(packing.lengths) * packing.longest, *packed.shape[1:]).index_copy(
                0, slots, packed
            )
        return packed.unflatten(0, (len(packing.lengths), packing.longest)).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        spread(query), spread(key), spread(value), dropout_p=dropout, is_causal=True
    )
    attended = attended.transpose(1, 2).flatten(0, 1)
    return attended if slots is None else attended[slots]


def xformers_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float) -> Tensor:
    """xformers' memory-efficient attention, which takes packed sequences as they are."""
    # the kernels take a batch axis, which stays 1
    return _xformers().memory_efficient_attention(
        query[None], key[None], value[None], attn_bias=packing.block_diagonal_mask, p=dropout
    )[0]


@torch.compiler.assume_constant_result
def _serves(device: str, dtype: torch.dtype, width: int, dropout: bool) -> bool:
    return _tried(device, dtype, width, dropout)


@functools.cache
def _tried(device: str, dtype: torch.dtype, width: int, dropout: bool) -> bool:
    """Whether xformers has a kernel, there and back: which ones are built, and for what, only a trial tells."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
        torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []),
    ):
        query, key, value = torch.zeros(3, 3, 2, width, dtype=dtype, device=device, requires_grad=True)
        packing = Packing(torch.tensor([2, 1], device=device))
        try:
            xformers_attention(query, key, value, packing, 0.5 if dropout else 0.0).sum().backward()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of many kinds: it has no kernel, or no such function at all
            reason = (str(error) or type(error).__name__).splitlines()[0]
            numbers = str(dtype).removeprefix("torch.")
            warnings.warn(
                f"xformers has no attention for {numbers} in heads of {width} here ({reason}): PyTorch's serves",
                stacklevel=2,
            )
            return False
    return True


@functools.cache
def _xformers() -> Any:
    """xformers' attention module, or None where it is not installed."""
    logger = logging.getLogger("xformers")
    level = logger.level
    # It warns when its compiled extension does not fit the torch at hand; the kernels used here are torch's own.
    logger.setLevel(logging.ERROR)
    try:
        from xformers.ops import fmha
    except Exception:  # whatever a mismatched build raises, PyTorch's own kernels serve
        return None
    finally:
        logger.setLevel(level)
    return fmha
