"""A figure with what says how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_RESAMPLES, _BATCH = 1000, 50


@dataclass(frozen=True)
class Value:
    """A figure.

    Attributes:
        value: The figure.
        low: The lower end of its 95% confidence interval, by bootstrap over the images; None where it has none.
        high: The upper end.
        deviation: Its standard deviation between subsets, where it is a mean over some.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None

    @classmethod
    def from_json(cls, given: Mapping[str, float | None]) -> Value:
        """What `to_json` gave.

        Raises:
            TypeError, ValueError or AttributeError: It is something else.
        """
        value, *rest = (given.get(name) for name in ("value", "low", "high", "deviation"))
        return cls(float("nan") if value is None else float(value), *(None if n is None else float(n) for n in rest))

    def shown(self) -> str:
        """``24.13 (24.01 to 24.25)``."""
        if self.low is not None and self.high is not None:
            return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"
        return f"{self.value:.4g}" if self.deviation is None else f"{self.value:.4g} ± {self.deviation:.4g}"

    def to_json(self) -> dict[str, float | None]:
        """As plain values, without those that it lacks; what is not finite becomes None."""
        fields = {"value": self.value, "low": self.low, "high": self.high, "deviation": self.deviation}
        kept = {name: number for name, number in fields.items() if name == "value" or number is not None}
        return {name: number if number is not None and math.isfinite(number) else None for name, number in kept.items()}


def mean_value(values: Float[np.ndarray, " n"], seed: int = 0) -> Value:
    """The mean over images with its bootstrap confidence interval (percentiles of 1000 resamples).

    Args:
        values: One of each image.
        seed: Sets the resamples.
    """
    from scipy.stats import bootstrap  # importing it takes long

    mean = float(values.mean())
    if len(values) < 2 or not np.isfinite(values).all():
        return Value(mean)
    found = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, batch=_BATCH, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Value(mean, float(found.low), float(found.high))
