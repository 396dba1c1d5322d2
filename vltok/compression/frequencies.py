"""Probabilities as whole numbers, so that both directions of an entropy coder use the very same ones on any machine.

Axis letters: n what a symbol may be.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

#: What the frequencies of an alphabet sum to: the coder's own precision.
TOTAL = 1 << 24


def quantized(probabilities: Float[np.ndarray, "*rows n"]) -> Int[np.ndarray, "*rows n"]:
    """Frequencies as near to probabilities as can be, each at least 1.

    Args:
        probabilities: At least 0, of any sum above 0, over at most 2²³ outcomes.
    """
    outcomes = probabilities.shape[-1]
    sums = probabilities.cumsum(-1, dtype=np.float64)
    edges = np.floor(sums / sums[..., -1:] * (TOTAL - outcomes)).astype(np.int64)
    return np.diff(edges, axis=-1, prepend=0) + 1
