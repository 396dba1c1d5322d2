"""What codes cost, and how they are spread: lengths, bits, shares of granularities, use of the codebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.devices import widest

_Count = TypeVar("_Count", float, Tensor)


def fixed_rate_bits(codes: _Count, regions: int, spec: CodeSpec) -> _Count:
    """The bits of so many codes at q·log2(v) each, and of the grain map of so many regions at log2(K) each."""
    grain_map = regions * math.log2(spec.granularities) if spec.gridded else 0.0
    return codes * spec.bits_per_code + grain_map


def codebook_usage(uses: Shaped[Tensor, "*k v"]) -> Float[Tensor, "*k"]:
    """The share of the codebook that occurs, in [0, 1], from how often each code does, or whether it does."""
    return (uses > 0).float().mean(dim=-1)


def codebook_perplexity(uses: Int[Tensor, "*k v"]) -> Float[Tensor, "*k"]:
    """exp of the entropy of the codes' frequencies, in [1, v]: so many codes, used evenly, say as much. 0 for none."""
    totals = uses.sum(dim=-1, keepdim=True)
    shares = uses.to(widest(uses.device)) / totals.clamp(min=1)
    return torch.where(totals[..., 0] > 0, torch.special.entr(shares).sum(dim=-1).exp(), 0.0)


def ratios(grains: Int[Tensor, "*b h w"], factors: Sequence[int]) -> dict[int, Float[Tensor, ""]]:
    """The share of regions of each granularity, by factor, from coarse to fine."""
    return {factor: (grains == k).to(widest(grains.device)).mean() for k, factor in enumerate(factors)}


def mean_length(codes: Codes) -> Float[Tensor, ""]:
    """The mean code length."""
    return codes.lengths.float().mean()
