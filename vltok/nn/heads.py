"""What turns hidden states into logits.

Axis letters: n token, d model width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltok.nn.linear import Linear

#: The most logits that a loss has in memory at once: 128 MiB in single precision.
LOGITS_AT_ONCE = 2**25


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

    def nats(self, hidden: Float[Tensor, "n d"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """What each target costs, −ln p, in single precision.

        The logits of large codebooks would be most of what a training step keeps. They are computed for some tokens at
        a time, and again in the backward pass.

        Args:
            hidden: What the logits are made of.
            targets: Which logit is that of what was to be predicted.
        """
        rows = max(LOGITS_AT_ONCE // self.linear.out_features, 1)
        if len(hidden) <= rows:
            return self._nats(hidden, targets)
        parts = zip(hidden.split(rows), targets.split(rows), strict=True)
        return torch.cat([checkpoint(self._nats, *part, use_reentrant=False) for part in parts])

    def _nats(self, hidden: Float[Tensor, "n d"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return F.cross_entropy(self(hidden).float(), targets, reduction="none")
