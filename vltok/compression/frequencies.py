"""Probabilities as whole numbers, so that both directions of an entropy coder use the very same ones on any machine.

Axis letters: n what a symbol may be.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Int

#: What the frequencies of an alphabet sum to: the coder's own precision.
TOTAL = 1 << 24
#: Steps of logits in one nat, and bits of the likeliest weight: the sums of 2¹⁹ weights times 2²⁴ stay below 2⁶³.
_STEPS, _BITS = 1 << 10, 20


def quantized(probabilities: Float[np.ndarray, "*rows n"]) -> Int[np.ndarray, "*rows n"]:
    """Frequencies as near to probabilities as can be, each at least 1.

    Args:
        probabilities: At least 0, of any sum above 0, over at most 2²³ outcomes.
    """
    outcomes = probabilities.shape[-1]
    sums = probabilities.cumsum(-1, dtype=np.float64)
    edges = np.floor(sums / sums[..., -1:] * (TOTAL - outcomes)).astype(np.int64)
    return np.diff(edges, axis=-1, prepend=0) + 1


def likely(logits: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Frequencies by the softmax of logits, each at least 1.

    Logits are rounded to 1/1024, which costs less than 10⁻⁷ nats a symbol; all that follows is arithmetic of whole
    numbers. So others that differ in their last digits, as another processor may compute them, give the same.

    Args:
        logits: Finite, at most 2¹⁹ of them.
    """
    steps = np.rint(logits.astype(np.float64) * _STEPS).astype(np.int64)
    weights = _weights()
    sums = weights[np.minimum(steps.max() - steps, len(weights) - 1)].cumsum()
    edges = sums * (TOTAL - len(sums)) // sums[-1]
    return np.diff(edges, prepend=0) + 1


@functools.cache
def _weights() -> Int[np.ndarray, " n"]:
    """2²⁰ exp(-n / 1024) as whole numbers, down to the first that is 0."""
    found, bits = [], 100
    value, factor = 1 << bits, 0
    # exp(-1/1024) by its series
    term = 1 << bits
    for number in range(1, 20):
        factor += term
        term = -term // (_STEPS * number)
    while value >> bits - _BITS:
        found.append(value >> bits - _BITS)
        value = value * factor >> bits
    return np.array([*found, 0])
