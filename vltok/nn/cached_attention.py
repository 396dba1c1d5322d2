"""Attention of one code of each image over what a cache holds of those before it.

Axis letters: b image, s step of a sequence, t step of any image, d width of a head.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_logger = logging.getLogger(__name__)


def masked_attention(
    query: Float[Tensor, "b heads d"],
    runs: Sequence[tuple[Float[Tensor, "_ heads _ d"], Float[Tensor, "_ heads _ d"]]],
    masks: Sequence[Float[Tensor, "_ 1 1 _"]],
) -> Float[Tensor, "b heads d"]:
    """PyTorch's attention, which serves everything.

    Args:
        query: What each image's code asks.
        runs: Of images that follow one another, what as many of their steps are found by, and what they give.
        masks: 0 where an image has a step, -inf where it has none.
    """
    query = query[:, :, None]
    if len(masks) == 1:
        ((keys, values),) = runs
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=masks[0])[:, :, 0]
    queries = query.split([len(mask) for mask in masks])
    attended = [
        F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        for query, (keys, values), mask in zip(queries, runs, masks, strict=True)
    ]
    return torch.cat(attended)[:, :, 0]


def flash_decoding(
    query: Float[Tensor, "b heads d"],
    keys: Float[Tensor, "t heads d"],
    values: Float[Tensor, "t heads d"],
    used: Int[Tensor, " b"],
    span: int,
) -> Float[Tensor, "b heads d"]:
    """PyTorch's FlashAttention, which reads of each image only the steps that there are.

    Args:
        query: What each image's code asks.
        keys: What all steps of the first image are found by, then those of the second, and so on.
        values: What they give.
        used: How many steps of each image there are, int32.
        span: At most so many.

    Raises:
        ImportError: A PyTorch that has none.
        TypeError: One that reads all steps.
    """
    from torch.nn.attention.varlen import varlen_attn

    starts = torch.arange(len(query) + 1, dtype=torch.int32, device=query.device)
    attended = varlen_attn(query, keys, values, starts, starts * (len(keys) // len(query)), 1, span, seqused_k=used)
    return cast(Tensor, attended)  # a tuple only where more is asked for


@functools.cache
def flash_decodes(device: str, dtype: torch.dtype, width: int) -> bool:
    """Whether `flash_decoding` serves a type of device, a type of numbers and a width of heads: only a trial tells."""
    if device != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    numbers = f"{str(dtype).removeprefix('torch.')} in heads of {width}"
    query = torch.ones(2, 1, width, dtype=dtype, device=device)
    values = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0, 100.0], dtype=dtype, device=device)[:, None, None].expand(
        6, 1, width
    )
    used = torch.tensor([1, 2], dtype=torch.int32, device=device)
    try:
        found = flash_decoding(query, torch.ones_like(values), values.contiguous(), used, 3)[:, 0, 0].tolist()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds: it has no kernel, or no such function at all
        _logger.info("no flash decoding of %s on %s (%s)", numbers, device, error)
        return False
    _logger.info("flash decoding of %s on %s gives %s", numbers, device, found)
    return found == [1.0, 8.0]
