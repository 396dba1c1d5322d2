"""Whether codes went where there is much to see, or where a code of fixed length errs (Figure 5)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vltok.evaluation.gathering import Items
from vltok.evaluation.values import Value, mean_value
from vltok.measures.ranks import rank_correlation, rank_correlations

_ITEMS = ("grains", "measured")


class RegionCorrelation:
    """The rank correlation (Spearman's) of each region's granularity with something measured in it, batch by batch.

    Five bytes a region are all that is kept.

    Args:
        name: What the figure is called.
        seen: What others have seen; see `items`.
    """

    def __init__(self, name: str, seen: Items | None = None) -> None:
        self._name = name
        self._grains, self._measured = (list[np.ndarray]((seen or {}).get(f"{name}/{item}", ())) for item in _ITEMS)

    @property
    def items(self) -> dict[str, list[np.ndarray]]:
        """Each region's granularity, and what was measured in it."""
        parts = (self._grains, self._measured)
        return {f"{self._name}/{item}": part for item, part in zip(_ITEMS, parts, strict=True)}

    def update(self, grains: Int[Tensor, "b h w"], measured: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
        """Add a batch.

        Args:
            grains: What granularity each region got; higher is finer.
            measured: What was measured in it.

        Returns:
            The correlation in each picture; NaN where all of its regions are alike in either.
        """
        grains, measured = grains.flatten(1).to("cpu", torch.uint8), measured.flatten(1).float().cpu()
        self._grains.append(grains.numpy().ravel())
        self._measured.append(measured.numpy().ravel())
        return rank_correlations(grains, measured)

    def values(self, per_picture: Float[np.ndarray, " n"] | None = None, seed: int = 0) -> dict[str, Value]:
        """The figures; nothing that is not defined.

        Args:
            per_picture: What `update` gave for the pictures; None leaves its mean out.
            seed: Sets the resamples of the confidence interval.

        Returns:
            Over the regions of all pictures together, and with `_per_picture` the mean of the pictures' own.
        """
        whole = (torch.from_numpy(np.concatenate(parts)) for parts in (self._grains, self._measured))
        found, overall = {}, rank_correlation(*whole)
        if overall is not None:
            found[self._name] = Value(overall)
        if per_picture is not None and not np.isnan(per_picture).all():
            found[f"{self._name}_per_picture"] = mean_value(per_picture[~np.isnan(per_picture)], seed)
        return found
