"""A figure with what says how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from vltok.measures.meanings import meaning

_RESAMPLES, _BATCH = 1000, 50


@dataclass(frozen=True)
class Value:
    """A figure.

    Attributes:
        value: The figure.
        low: The lower end of its 95% confidence interval, by bootstrap over the images; None where it has none.
        high: The upper end.
        deviation: Its standard deviation between subsets, where it is a mean over some.
        note: What a reader must know of it; None where there is nothing.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    note: str | None = None

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Value:
        """What `to_json` gave.

        Raises:
            TypeError, ValueError or AttributeError: It is something else.
        """
        parts = (given.get(name) for name in ("value", "low", "high", "deviation"))
        value, low, high, deviation = (None if number is None else float(number) for number in parts)
        return cls(math.nan if value is None else value, low, high, deviation, given.get("note"))

    def shown(self, form: str, unit: str = "") -> str:
        """``24.13 dB (24.01 to 24.25)``: with a form of Python's format language, and a unit or none."""
        text = f"{format(self.value, form)} {unit}".strip()
        if self.low is not None and self.high is not None:
            text += f" ({format(self.low, form)} to {format(self.high, form)})"
        if self.deviation is not None:
            text += f" ± {format(self.deviation, form)}"
        return text if self.note is None else f"{text}, {self.note}"

    def to_json(self) -> dict[str, float | str | None]:
        """As plain values, without those that it lacks; what is not finite becomes None."""
        kept = {name: part for name, part in asdict(self).items() if name == "value" or part is not None}
        return {
            name: None if isinstance(part, float) and not math.isfinite(part) else part for name, part in kept.items()
        }


def value_lines(values: Mapping[str, Value]) -> list[str]:
    """Figures as a terminal shows them: a line each, with name, direction, number and unit."""
    told = [(meaning(name), value) for name, value in values.items()]
    width = max((len(means.name) for means, _ in told), default=0)
    return [
        f"  {means.name:<{width}} {means.arrow or ' '} {value.shown(means.form, means.unit)}" for means, value in told
    ]


def mean_value(values: Float[np.ndarray, " n"], seed: int = 0) -> Value:
    """The mean over images with its bootstrap confidence interval (percentiles of 1000 resamples, set by a seed)."""
    from scipy.stats import bootstrap  # importing it takes long

    mean = float(values.mean())
    if len(values) < 2 or not np.isfinite(values).all():
        return Value(mean)
    found = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, batch=_BATCH, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Value(mean, float(found.low), float(found.high))
