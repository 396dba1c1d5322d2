"""Whether codes went where a code of fixed length errs: its error map against the coding map (Figure 5)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from vltok.measures.contrast import split_regions
from vltok.measures.gathering import gather
from vltok.measures.values import Value, mean_value


class RegionErrors:
    """The granularity of each region and its l1 error at fixed length, gathered batch by batch.

    Five bytes a region are all that is kept.
    """

    def __init__(self) -> None:
        self._grains: list[np.ndarray] = []
        self._errors: list[np.ndarray] = []

    def update(
        self,
        grains: Int[Tensor, "b h w"],
        decoded: UInt8[Tensor, "b 3 H W"],
        pixels: UInt8[Tensor, "b 3 H W"],
        region: int,
    ) -> Float[np.ndarray, " b"]:
        """Add a batch.

        Args:
            grains: What granularity each region got; higher is finer.
            decoded: What is left of the pictures at fixed length.
            pixels: The pictures.
            region: The side of a region in pixels.

        Returns:
            Spearman's rank correlation of granularity with error in each picture; NaN where all regions of a picture
            have one granularity, or one error.
        """
        # sums of whole numbers, so that equal errors are equal
        error = (decoded.int() - pixels.int()).abs().sum(dim=1).float()
        errors = split_regions(error, region).sum(dim=3).flatten(1).numpy()
        chosen = grains.flatten(1).numpy().astype(np.uint8)
        self._errors.append(errors.ravel())
        self._grains.append(chosen.ravel())
        return _row_correlations(chosen, errors)

    def values(self, per_picture: Float[np.ndarray, " n"], seed: int = 0) -> dict[str, Value]:
        """The figures of all processes; nothing that is not defined.

        Args:
            per_picture: What `update` gave for the pictures of all processes.
            seed: Sets the resamples of the confidence interval.

        Returns:
            `error_correlation`: over the regions of all pictures together. `error_correlation_per_picture`: the mean of
            the pictures' own.
        """
        grains, errors = (np.concatenate(gather(parts)) for parts in (self._grains, self._errors))
        defined = per_picture[~np.isnan(per_picture)]
        found = {}
        if grains.min() < grains.max() and errors.min() < errors.max():
            found["error_correlation"] = Value(float(spearmanr(grains, errors).statistic))
        if len(defined):
            found["error_correlation_per_picture"] = mean_value(defined, seed)
        return found


def _row_correlations(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, " n"]:
    """Spearman's correlation of each pair of rows: Pearson's of their ranks."""
    ranks = [rankdata(values, axis=1) for values in (first, second)]
    centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    spreads = [np.sqrt((part**2).sum(axis=1)) for part in centred]
    with np.errstate(invalid="ignore"):
        return (centred[0] * centred[1]).sum(axis=1) / (spreads[0] * spreads[1])
