"""Quantiles of what lies on any device."""

import torch
from jaxtyping import Float
from torch import Tensor


def quantile(values: Float[Tensor, " n"], share: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The value below which a share of them lies; torch.quantile needs double precision, which not all devices have."""
    place = share * (len(values) - 1)
    low, high = values.sort().values.index_select(0, torch.stack([place.floor(), place.ceil()]).long()).unbind()
    return low.lerp(high, place.frac())
