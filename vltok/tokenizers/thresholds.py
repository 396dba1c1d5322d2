"""How gates that compare with thresholds find these in a batch, and keep them beyond it."""

import torch
from jaxtyping import Float
from torch import Tensor


def quantile(values: Float[Tensor, " n"], share: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The value below which a share of them lies; torch.quantile needs double precision, which not all devices have."""
    place = share * (len(values) - 1)
    low, high = values.sort().values.index_select(0, torch.stack([place.floor(), place.ceil()]).long()).unbind()
    return low.lerp(high, place.frac())


def pace(steps: Float[Tensor, ""], decay: float) -> Float[Tensor, ""]:
    """The weight of a new value in a moving average after so many steps: at first that of a plain mean."""
    return (1 / steps.clamp_min(1)).clamp_min(1 - decay)
