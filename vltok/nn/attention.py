"""Attention over packed sequences, causal or not: one function, and one backend for each kind of device.

Axis letters: b image, t code (packed over the batch), d width of a head.
"""

from __future__ import annotations

import functools
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

_logger = logging.getLogger(__name__)


class Packing:
    """Where the images of a batch lie in a packed sequence. Made once a batch and shared by every layer.

    The host must know the lengths, which attention kernels need.

    Args:
        lengths: The number of codes of each image, `[b]`.
        known: The same where the host knows it; None reads it back from the device.
    """

    def __init__(self, lengths: Int[Tensor, " b"], known: list[int] | None = None) -> None:
        self.lengths: list[int] = lengths.tolist() if known is None else known
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

    def padded(self, packed: Shaped[Tensor, "t ..."]) -> Shaped[Tensor, "b longest ..."]:
        """Packed values image by image, zeros behind those of shorter images."""
        if self.padded_slots is not None:
            zeros = packed.new_zeros(len(self.lengths) * self.longest, *packed.shape[1:])
            packed = zeros.index_copy(0, self.padded_slots, packed)
        return packed.unflatten(0, (len(self.lengths), self.longest))

    def packed(self, padded: Shaped[Tensor, "b longest ..."]) -> Shaped[Tensor, "t ..."]:
        """What `padded` was given."""
        values = padded.flatten(0, 1)
        return values if self.padded_slots is None else values[self.padded_slots]

    @functools.cached_property
    def causal_mask(self) -> Any:
        """xformers' mask that keeps images apart and codes from seeing later ones."""
        return _xformers().attn_bias.BlockDiagonalCausalMask.from_seqlens(self.lengths, device=self.cu_seqlens.device)

    @functools.cached_property
    def mask(self) -> Any:
        """xformers' mask that keeps images apart."""
        return _xformers().attn_bias.BlockDiagonalMask.from_seqlens(self.lengths, device=self.cu_seqlens.device)

    @functools.cached_property
    def present(self) -> Bool[Tensor, "b longest"]:
        """Which slots of images padded on the right hold a code."""
        lengths = self.cu_seqlens.diff()
        return torch.arange(self.longest, device=lengths.device) < lengths[:, None]


#: From this mean length on, a CPU's work on an image costs more than a call for it.
_LONG = 32

Kernel = Literal["auto", "xformers", "varlen", "sdpa"]
Backend = Callable[[Tensor, Tensor, Tensor, Packing, float, bool], Tensor]


class Attending(nn.Module):
    """A module that computes attention over packed sequences by a kernel that is chosen from outside.

    Attributes:
        kernel: See `backend`.
    """

    kernel: Kernel = "auto"


def use_attention(model: nn.Module, kernel: Kernel) -> None:
    """Let all of a model that attends do so by a kernel: see `backend`."""
    for module in model.modules():
        if isinstance(module, Attending):
            module.kernel = kernel


def packed_attention(
    query: Float[Tensor, "t heads d"],
    key: Float[Tensor, "t heads d"],
    value: Float[Tensor, "t heads d"],
    packing: Packing,
    dropout: float = 0.0,
    kernel: Kernel = "auto",
    causal: bool = True,
) -> Float[Tensor, "t heads d"]:
    """softmax(q kᵀ / √d) v, where each code sees the codes of its own image.

    Args:
        query: What each code asks.
        key: What each code is found by.
        value: What each code gives.
        packing: Where images lie.
        dropout: Probability with which an attention weight is dropped.
        kernel: What computes it: see `backend`.
        causal: Whether it sees itself and earlier ones alone.
    """
    attend = backend(kernel, query.device.type, query.dtype, query.shape[-1], dropout > 0, causal)
    return attend(query, key, value, packing, dropout, causal)


def backend(
    kernel: Kernel, device: str, dtype: torch.dtype, width: int, dropout: bool = False, causal: bool = True
) -> Backend:
    """What computes attention for a type of device, a type of numbers and a width of heads.

    Args:
        kernel: ``xformers``' memory-efficient kernels; ``varlen``, PyTorch's own FlashAttention on packed sequences,
            for half precision without dropout; ``sdpa``, PyTorch's attention on padded images, which serves everything;
            or ``auto``, on CUDA the first of these that has a kernel, elsewhere ``sdpa``. One that has no kernel here
            is tried once, and ``sdpa`` serves in its place.
        device: A type of device, such as ``cuda``.
        dtype: The type of queries, keys and values.
        width: The width of a head.
        dropout: Whether attention weights are dropped.
        causal: Whether codes see no later ones.
    """
    if kernel == "auto":
        half = dtype in (torch.float16, torch.bfloat16)
        candidates = {"xformers": _xformers() is not None, "varlen": half and not dropout} if device == "cuda" else {}
        tried = [name for name, suits in candidates.items() if suits]
    else:
        tried = [kernel]
    serving = next((name for name in tried if _serves(name, device, dtype, width, dropout, causal)), "sdpa")
    return _BACKENDS[serving]


def sdpa_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float, causal: bool = True
) -> Tensor:
    """PyTorch's attention. Its kernels take rectangles, so images are padded on the right here and nowhere else:
    where attention is causal, no code sees the padding behind it, and no mask is needed."""
    slots = packing.padded_slots
    if query.device.type == "cpu" and slots is not None and packing.total >= _LONG * len(packing.lengths):
        return _image_by_image(query, key, value, packing, dropout, causal)
    mask = None if causal or slots is None else packing.present[:, None, None]
    queries, keys, values = (packing.padded(packed).transpose(1, 2) for packed in (query, key, value))
    attended = F.scaled_dot_product_attention(queries, keys, values, mask, dropout_p=dropout, is_causal=causal)
    return packing.packed(attended.transpose(1, 2))


def _image_by_image(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float, causal: bool
) -> Tensor:
    """The same without padding: a CPU, which has few cores, gains nothing by taking long images together."""
    queries, keys, values = (packed.transpose(0, 1)[None].split(packing.lengths, 2) for packed in (query, key, value))
    attended = [
        F.scaled_dot_product_attention(asked, found, given, dropout_p=dropout, is_causal=causal)
        for asked, found, given in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(attended, 2)[0].transpose(0, 1)


def xformers_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float, causal: bool = True
) -> Tensor:
    """xformers' memory-efficient attention, which takes packed sequences as they are.

    Raises:
        ImportError: It is not installed, or has no kernels.
    """
    fmha = _xformers()
    if fmha is None:
        raise ImportError("xformers with its kernels is not installed: pip install 'vltok[cuda]'")
    # the kernels take a batch axis, which stays 1
    mask = packing.causal_mask if causal else packing.mask
    return fmha.memory_efficient_attention(query[None], key[None], value[None], attn_bias=mask, p=dropout)[0]


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float, causal: bool = True
) -> Tensor:
    """PyTorch's FlashAttention, which takes packed sequences as they are.

    Raises:
        NotImplementedError: Dropout, or numbers that are not of half precision.
        ImportError: A PyTorch that has none.
    """
    from torch.nn.attention.varlen import varlen_attn

    if dropout:
        raise NotImplementedError("it drops no attention weights")
    cumulative, longest = packing.cu_seqlens, packing.longest
    window = (-1, 0) if causal else (-1, -1)
    attended = varlen_attn(query, key, value, cumulative, cumulative, longest, longest, window_size=window)
    return cast(Tensor, attended)  # a tuple only where more is asked for


_BACKENDS: dict[str, Backend] = {
    "xformers": xformers_attention,
    "varlen": varlen_attention,
    "sdpa": sdpa_attention,
}


@torch.compiler.assume_constant_result
def _serves(kernel: str, device: str, dtype: torch.dtype, width: int, dropout: bool, causal: bool) -> bool:
    return _tried(kernel, device, dtype, width, dropout, causal)


@functools.cache
def _tried(kernel: str, device: str, dtype: torch.dtype, width: int, dropout: bool, causal: bool) -> bool:
    """Whether there is a kernel, there and back: which ones are built, and for what, only a trial tells."""
    if kernel == "sdpa":
        return True
    numbers = f"{str(dtype).removeprefix('torch.')} in heads of {width}{' with dropout' if dropout else ''}"
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
        torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []),
    ):
        query, key, value = torch.zeros(3, 3, 2, width, dtype=dtype, device=device, requires_grad=True)
        packing = Packing(torch.tensor([2, 1], device=device))
        try:
            _BACKENDS[kernel](query, key, value, packing, 0.5 if dropout else 0.0, causal).sum().backward()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of many kinds: it has no kernel, or no such function at all
            reason = re.split(r"\n|\. ", str(error) or type(error).__name__)[0]
            warnings.warn(
                f"{kernel} has no attention for {numbers} on {device} ({reason}): PyTorch's own serves", stacklevel=2
            )
            return False
    _logger.info("attention of %s on %s by %s", numbers, device, kernel)
    return True


@functools.cache
def _xformers() -> Any:
    """xformers' attention module, or None where it is not installed, or is one without kernels."""
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
    # releases after 0.0.35 leave the kernels to a package that need not be there
    return fmha if hasattr(fmha, "memory_efficient_attention") else None
