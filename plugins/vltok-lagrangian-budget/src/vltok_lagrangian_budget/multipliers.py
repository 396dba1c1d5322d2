"""The multipliers of an augmented Lagrangian, learned by dual ascent."""

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from vltok.errors import UserError

#: A multiplier pulls no harder than the penalty does at this gap. While a gap closes as fast as the optimizer lets it,
#: an unbounded one would go on growing, and carry it far beyond the target.
LARGEST_GAP = 0.1


class Multipliers(nn.Module):
    """Turns gaps, which are to become zero, into a loss.

    A penalty λ·gap² alone, such as eq. (7) of the paper, stops where its pull equals that of the reconstruction, so
    that a gap stays. This adds μ·gap, and lets μ grow by a share of the penalty's pull, 2λ·gap, each step: it stops
    growing where there is no gap, and then μ is what closing it costs the reconstruction (the method of multipliers:
    Bertsekas, Constrained Optimization and Lagrange Multiplier Methods, 1982, chapter 2).

    Over several processes the gap is that of the whole batch, and all hold the same multipliers.

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
        """The loss of each image's gaps; in training mode the multipliers then grow.

        Its value and gradient are those of μ·gap + λ·gap², where `gap` is the mean over all images of all processes.
        """
        gaps = gaps.float()
        mean = _over_all(gaps.detach())
        loss = (self.values * mean + self.weight * mean.square()).sum()
        # processes average their gradients: each adds that of its own images at the pull of all
        here = gaps.mean(dim=0)
        loss = loss + ((self.values + 2 * self.weight * mean) * (here - here.detach())).sum()
        if self.training:
            largest = 2 * self.weight * LARGEST_GAP
            self.values.add_(mean, alpha=2 * self.weight * self.rate).clamp_(-largest, largest)
        return loss


def _over_all(gaps: Float[Tensor, "b gap"]) -> Float[Tensor, " gap"]:
    """The mean over the images of all processes."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return gaps.mean(dim=0)
    total = torch.cat([gaps.sum(dim=0), gaps.new_full((1,), len(gaps))])
    distributed.all_reduce(total)
    return total[:-1] / total[-1]
