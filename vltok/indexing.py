"""The images of a batch that an index names."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from jaxtyping import Int
from torch import Tensor


def image_numbers(index: object, count: int) -> Int[Tensor, " n"]:
    """The numbers of the images of a batch that an index means, all of them from 0 to count - 1.

    Raises:
        IndexError: A number outside the batch, or a mask of another length.
        TypeError: Something else than a number, a slice, a row of numbers, or a mask.
    """
    every = torch.arange(count)
    if isinstance(index, slice):
        return torch.tensor(range(count)[index], dtype=torch.long)  # torch knows no negative steps
    try:
        index = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):  # whatever torch says of what it makes no tensor of
        if isinstance(index, SupportsIndex):  # a number of more than 64 bits
            raise IndexError(f"image {index} of a batch of {count}") from None
        raise _no_index(index) from None
    if not index.numel() and index.dim() == 1:
        return every[:0]  # an empty list is of floats
    if index.dtype == torch.bool and index.dim() == 1:
        if len(index) != count:
            raise IndexError(f"a mask of {len(index)} for a batch of {count}")
        return every[index.cpu()]
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool or index.dim() > 1:
        raise _no_index(index)
    numbers = index.long().cpu().reshape(-1)
    outside = (numbers < -count) | (numbers >= count)
    if index.dtype == torch.uint64:  # numbers of 2⁶³ and more come out as negative ones
        outside |= numbers < 0
    if outside.any():
        raise IndexError(f"image {index.reshape(-1)[int(outside.int().argmax())].item()} of a batch of {count}")
    return every[numbers]


def _no_index(index: object) -> TypeError:
    return TypeError(
        f"codes take the number of an image, a slice, a row of numbers, or a mask of booleans, not {index}"
    )
