"""The straight-through estimator: one tensor's value with another's gradient."""

import torch
from torch import Tensor


def straight_through(value: Tensor, gradient: Tensor) -> Tensor:
    """A tensor that equals `value` exactly and passes its gradient to `gradient` alone.

    Written so that the value is not rounded: ``gradient - gradient.detach()`` is zero, while the usual
    ``gradient + (value - gradient).detach()`` gives back `value` only to within a rounding error.
    """
    return value.detach() + (gradient - gradient.detach())


def gumbel_like(tensor: Tensor) -> Tensor:
    """Samples of Gumbel(0, 1), in a tensor's shape."""
    return -torch.empty_like(tensor).exponential_().log()
