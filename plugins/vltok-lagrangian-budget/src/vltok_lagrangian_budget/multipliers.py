"""The multipliers of an augmented Lagrangian, learned by dual ascent."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vltok.errors import UserError
from vltok.processes import batch_mean

#: A multiplier pulls no harder than the penalty does at this gap. While a gap closes as fast as the optimizer lets it,
#: an unbounded one would go on growing, and carry it far beyond the target.
LARGEST_GAP = 0.1


class Multipliers(nn.Module):
    """Turns gaps, which are to become zero, into a loss.

    A penalty λ·gap² alone, such as eq. (7) of the paper, stops where its pull equals that of the reconstruction, so
    that a gap stays. This adds μ·gap, and lets μ grow by a share of the penalty's pull, 2λ·gap, each step: it stops
    growing where there is no gap, and then μ is what closing it costs the reconstruction (the method of multipliers:
    Bertsekas, Constrained Optimization and Lagrange Multiplier Methods, 1982, chapter 2).

    In training on several processes the gap is that of the whole batch, and all hold the same multipliers.

    Args:
        count: How many gaps there are.
        weight: The penalty's weight, λ; it damps what would else swing around the target.
        rate: The share of the penalty's pull by which the multipliers grow each step, in (0, 1].

    Raises:
        UserError: A weight that is not positive, or a rate outside (0, 1].
    """

    values: Tensor

    def __init__(self, count: int, weight: float, rate: float) -> None:
        super().__init__()
        if weight <= 0:
            raise UserError(f"budget.weight must be positive, not {weight}")
        if not 0 < rate <= 1:
            raise UserError(f"budget.rate must lie in (0, 1], not {rate}")
        self.weight = weight
        self.rate = rate
        self.register_buffer("values", torch.zeros(count))

    def forward(self, gaps: Float[Tensor, "b gap"]) -> Float[Tensor, ""]:
        """The loss μ·gap + λ·gap² of the mean of each image's gaps; in training mode the multipliers then grow."""
        mean = batch_mean(gaps.float(), together=self.training)
        loss = (self.values.clone() * mean + self.weight * mean.square()).sum()
        if self.training:
            largest = 2 * self.weight * LARGEST_GAP
            self.values.add_(mean.detach(), alpha=2 * self.weight * self.rate).clamp_(-largest, largest)
        return loss
