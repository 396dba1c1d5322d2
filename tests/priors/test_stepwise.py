"""Rows of similar age, which read as much of their caches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_priors import tiny_prior
from vltok.interfaces import SamplingConfig
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.stepwise import by_age


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 8))
def test_runs_have_similar_ages_and_few_rows_move(ages, size):
    order = by_age(ages, size)
    assert sorted(order) == list(range(len(ages)))
    runs = [sorted(ages[row] for row in order[start : start + size]) for start in range(0, len(ages), size)]
    ranked = sorted(ages, reverse=True)
    assert runs == [sorted(ranked[start : start + size]) for start in range(0, len(ages), size)]
    assert by_age([ages[row] for row in order], len(ages)) == list(range(len(ages))), "nothing moves within a run"


def test_one_that_begins_anew_moves_one_row_of_each_run():
    ages = [40, 41, 30, 31, 20, 21, 10, 11]
    assert by_age(ages, 2) == list(range(8))
    assert by_age([0, *ages[1:]], 2) == [3, 1, 2, 5, 4, 7, 6, 0]


@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
def test_rows_of_many_images_read_the_cache_in_runs(monkeypatch):
    """And draw what single images draw."""
    prior = tiny_prior(DQTransformer, 8, (2, 1), (2, 3)).double()
    expected = prior.sample(15, SamplingConfig(), torch.Generator().manual_seed(0), batch_size=1)
    reaches = set()
    step = type(prior.content_transformer).step

    def observed(model, hidden, cache, cursors):
        reaches.add(tuple(rows for rows, _ in cursors.reach))
        return step(model, hidden, cache, cursors)

    monkeypatch.setattr(type(prior.content_transformer), "step", observed)
    found = prior.sample(15, SamplingConfig(), torch.Generator().manual_seed(0), batch_size=12)
    assert found.equal(expected)
    assert {(4, 4, 4), (4, 4, 1), (1,)} <= reaches
