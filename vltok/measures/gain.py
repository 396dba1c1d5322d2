"""How much of what a choice of granularities could gain it gains.

The *error* of a region is what it loses at a granularity; the *gain* of a choice is how much less all regions lose.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def gain_share(errors: Float[np.ndarray, "r k"], grains: Int[np.ndarray, " r"]) -> float | None:
    """The share of the best possible gain that a choice obtains, above the expectation of random places.

    All three have the same number of regions of each granularity. None where they cannot differ. `errors` are those of
    each region at each granularity.
    """
    counts = np.bincount(grains, minlength=errors.shape[1])
    random = float(errors.mean(axis=0) @ counts)
    obtained = float(errors[np.arange(len(grains)), grains].sum())
    best = float(errors[np.arange(len(grains)), best_choice(errors, counts)].sum())
    return (random - obtained) / (random - best) if random > best else None


def best_choice(
    errors: Float[np.ndarray, "r k"], counts: Sequence[int] | Int[np.ndarray, " k"]
) -> Int[np.ndarray, " r"]:
    """The choice of least total error of which each granularity has a given number of regions.

    A transport problem, solved by cancelling cycles: as long as it helps that one region goes from granularity a to b,
    one from b to c, … and one back to a, the best such exchange is made. Where none helps, the choice is the best.

    Args:
        errors: Of each region at each granularity, `[r k]`.
        counts: How many regions get each granularity, `[k]`; they sum to r.
    """
    regions, granularities = errors.shape
    choice = np.empty(regions, dtype=np.int64)
    # to begin with, the finest go where the whole way gains most: for two granularities that is the best
    choice[np.argsort(errors[:, 0] - errors[:, -1])] = np.repeat(np.arange(granularities), counts)
    cycles = [
        [*zip(places, (*places[1:], places[0]), strict=True)]
        for length in range(2, granularities + 1)
        for places in itertools.permutations(range(granularities), length)
        if places[0] == min(places)
    ]
    least = 1e-12 * max(float(np.abs(errors).max()), 1e-300)  # what rounding gains counts for nothing
    while cycles:
        change = errors - errors[np.arange(regions), choice][:, None]
        # for each pair of granularities the region that goes best from the one to the other, and what that costs
        here = [np.where((choice == k)[:, None], change, np.inf) for k in range(granularities)]
        movers = np.stack([table.argmin(axis=0) for table in here])
        costs = np.stack([table.min(axis=0) for table in here])
        cost, cycle = min((sum(costs[move] for move in cycle), cycle) for cycle in cycles)
        if cost >= -least:
            break
        for before, after in cycle:
            choice[movers[before, after]] = after
    return choice
