"""Cutting an order of samples into batches, of which each may hold samples of one group alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int


def in_batches(
    order: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " samples"],
    edges: Callable[[int, Int[np.ndarray, " m"]], Int[np.ndarray, " edges"]],
) -> list[Int[np.ndarray, " b"]]:
    """Cut an order into batches of one group each: a batch stands where the one in its middle would.

    Args:
        order: Some samples, in order.
        groups: The group of each sample, from 0.
        edges: Given a group and its samples in order, says where their batches begin, with the end of the last.
    """
    batches: list[Int[np.ndarray, " b"]] = []
    middles: list[Int[np.ndarray, " batches"]] = []
    of_places = groups[order]
    for group in np.unique(of_places):
        places = np.flatnonzero(of_places == group)
        own = order[places]
        cuts = edges(int(group), own)
        batches += [own[start:end] for start, end in itertools.pairwise(cuts)]
        middles.append(places[(cuts[:-1] + cuts[1:]) // 2])
    return [batches[place] for place in np.argsort(np.concatenate(middles), kind="stable")]


def number_of_batches(
    counts: Int[np.ndarray, " g"], costs: Int[np.ndarray, " g"], rooms: Int[np.ndarray, " g"], processes: int
) -> Int[np.ndarray, " g"] | None:
    """How many batches each group gets, so that all processes have the same number; None where samples are too few.

    Args:
        counts: How many samples a group has.
        costs: What these cost together.
        rooms: What a batch holds of a group, whatever the order.
        processes: How many share the batches.
    """
    batches = np.minimum(-(-costs // rooms), counts)
    for _ in range(-int(batches.sum()) % processes):  # where batches are fullest, there is one more
        means = np.where(batches < counts, costs / np.maximum(batches, 1), -1.0)
        if means.max() < 0:
            return None
        batches[means.argmax()] += 1
    return batches


def even_edges(costs: Int[np.ndarray, " n"], batches: int) -> Int[np.ndarray, " edges"]:
    """Where so many batches of about equal cost begin in a row of samples, and the end: none is empty.

    A batch costs less than their mean cost and the longest sample together.

    Args:
        costs: What each sample costs, in order; at least as many as batches.
        batches: How many.
    """
    starts = np.cumsum(costs) - costs
    # batch j has the samples that start in [j·w, (j + 1)·w) of the costs laid end to end: the exact form of ⌊start / w⌋
    edges = np.searchsorted(starts * batches // int(costs.sum()), np.arange(batches + 1))
    # one that a long sample would leave empty takes the next, whose batch then has fewer
    steps = np.arange(batches + 1)
    return np.minimum(np.maximum.accumulate(edges - steps) + steps, len(costs) - batches + steps)
