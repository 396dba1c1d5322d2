"""Batches of one group each: whole, within their limit, and as many for every process."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vltok.loading.plans import even_edges, in_batches, number_of_batches

COSTS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(COSTS, st.data())
def test_even_batches_are_never_empty_nor_above_their_mean_and_the_longest(
    costs: list[int], data: st.DataObject
) -> None:
    batches = data.draw(st.integers(1, len(costs)))
    edges = even_edges(np.array(costs), batches)
    assert edges[0] == 0 and edges[-1] == len(costs) and len(edges) == batches + 1
    sums = [sum(costs[start:end]) for start, end in itertools.pairwise(edges)]
    assert (np.diff(edges) > 0).all()
    assert max(sums) < sum(costs) / batches + max(costs)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 7), st.randoms())
def test_every_process_gets_as_many_batches_of_one_group(groups: list[int], most: int, processes: int, draws) -> None:
    of = np.unique(groups, return_inverse=True)[1].reshape(-1)
    order = np.array(draws.sample(range(len(of)), len(of)))
    counts = np.bincount(of)
    numbers = number_of_batches(counts, counts, np.full_like(counts, most), processes)
    if numbers is None:
        fewest = int((-(-counts // most)).sum())
        assert len(of) < -(-fewest // processes) * processes
        return
    found = in_batches(order, of, lambda group, own: even_edges(np.ones_like(own), int(numbers[group])))
    assert len(found) % processes == 0
    assert sorted(np.concatenate(found)) == list(range(len(of)))
    assert all(0 < len(batch) <= most and len(set(of[batch])) == 1 for batch in found)


def test_batches_of_a_group_are_spread_over_the_order() -> None:
    groups = np.array([0, 1] * 20 + [2])
    found = in_batches(np.arange(41), groups, lambda group, own: np.append(np.arange(0, len(own), 5), len(own)))
    assert [int(groups[batch[0]]) for batch in found] == [0, 1, 0, 1, 0, 1, 0, 1, 2]
