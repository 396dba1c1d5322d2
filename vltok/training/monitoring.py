"""What people watch while a tokenizer trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from vltok.codes import Codes
from vltok.measures.codes import codebook_usage, mean_length, ratios


class CodebookUsage(Metric):
    """The share of the codebooks' entries that occurs among the codes seen, in [0, 1].

    Args:
        size: Number of entries of all codebooks.
        window: Count only the codes of so many last updates; None for all since the last reset.
        across_devices: Whether `compute` joins the codes seen on all devices.
    """

    full_state_update = False
    higher_is_better = True
    last_used: Tensor

    def __init__(self, size: int, window: int | None = None, across_devices: bool = True) -> None:
        super().__init__(sync_on_compute=across_devices)
        self._window = window
        # the update at which each code was last seen; 0 for never
        self.add_state("last_used", torch.zeros(size, dtype=torch.long), dist_reduce_fx="max")

    def update(self, ids: Int[Tensor, " n"]) -> None:
        """Note the ids that occur in a batch, each at least once."""
        self.last_used[ids] = self.update_count

    def compute(self) -> Float[Tensor, ""]:
        """The share."""
        oldest = 0 if self._window is None else max(self.update_count - self._window, 0)
        return codebook_usage(self.last_used > oldest)


def code_figures(codes: Codes, factors: Sequence[int]) -> dict[str, Float[Tensor, ""]]:
    """The mean code length and the share of each granularity's regions, ``ratio_`` with its factor.

    Args:
        codes: The codes of a batch.
        factors: The tokenizer's factors, from coarse to fine; empty where codes lie on no grid.
    """
    figures = {"code_length": mean_length(codes)}
    if factors:
        shares = ratios(codes.require_grains(), factors)
        figures |= {f"ratio_{factor}": share.float() for factor, share in shares.items()}
    return figures
