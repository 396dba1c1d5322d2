"""What turns hidden states into logits.

Axis letters: n token, d model width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from vltok.nn.linear import Linear


class Head(nn.Module):
    """Hidden states → logits: a norm and a matrix without bias.

    Args:
        width: Model width.
        size: Number of logits.
        norm: Makes the norm of a width.
    """

    def __init__(self, width: int, size: int, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm(width)
        self.linear = Linear(width, size, bias=False)

    def forward(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """The logits."""
        return self.linear(self.norm(hidden))
