"""Rank correlations: whether one thing is high where another is, whatever their scales."""

import torch
from jaxtyping import Float, Shaped
from scipy.stats import rankdata
from torch import Tensor


def rank_correlations(first: Shaped[Tensor, "b n"], second: Shaped[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Spearman's correlation of each pair of rows, in float64 on the CPU: Pearson's of their ranks.

    NaN where all values of a row are equal, so that there is no rank.
    """
    ranks = [torch.from_numpy(rankdata(values.cpu().numpy(), axis=1)) for values in (first, second)]
    centred = [rank - rank.mean(dim=1, keepdim=True) for rank in ranks]
    return (centred[0] * centred[1]).sum(dim=1) / (centred[0].norm(dim=1) * centred[1].norm(dim=1))


def rank_correlation(first: Shaped[Tensor, " n"], second: Shaped[Tensor, " n"]) -> float | None:
    """Spearman's correlation; None where all values of a side are equal."""
    if not first.numel() or any(values.min() == values.max() for values in (first, second)):
        return None
    return rank_correlations(first[None], second[None]).item()
