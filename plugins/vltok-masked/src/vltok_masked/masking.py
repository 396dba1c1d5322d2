"""How many codes are masked, and which.

Axis letters: b image, t code (packed over the batch).
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.drawing.sampling import streams, uniforms
from vltok.nn.attention import Packing


def cosine(progress: float) -> float:
    """The share of codes that are still masked at some progress in [0, 1]: the cosine schedule of MaskGIT."""
    return max(0.0, math.cos(math.pi / 2 * progress))


def ranks(scores: Float[Tensor, " t"], packing: Packing) -> Int[Tensor, " t"]:
    """The place of each code among those of its image, by ascending score, counted from 0."""
    order = scores.argsort(stable=True)
    order = order[packing.images[order].argsort(stable=True)]
    return torch.empty_like(order).index_copy(0, order, packing.steps)


def random_mask(packing: Packing) -> Bool[Tensor, " t"]:
    """A share of each image's codes, by the cosine schedule at a progress drawn evenly: at least one, anywhere."""
    device = packing.steps.device
    progress = torch.rand(len(packing.lengths), device=device)
    return _mask(progress, torch.rand(packing.total, device=device), packing)


def fixed_mask(ids: Int[Tensor, " t"], packing: Packing) -> Bool[Tensor, " t"]:
    """The same, but always the same for the same codes, so that evaluations compare."""
    sums = torch.zeros_like(packing.cu_seqlens[1:], dtype=torch.long)
    image = streams(0, sums.index_add(0, packing.images, (ids.long() + 1) * (packing.steps + 1)))
    return _mask(uniforms(image, torch.zeros_like(image)), uniforms(image[packing.images], 1 + packing.steps), packing)


def _mask(progress: Float[Tensor, " b"], scores: Float[Tensor, " t"], packing: Packing) -> Bool[Tensor, " t"]:
    lengths = packing.cu_seqlens.diff()
    masked = ((math.pi / 2 * progress).cos() * lengths).ceil().clamp(min=1)
    return ranks(scores, packing) < masked[packing.images]
