"""What a choice of granularities gains, against every choice there is."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.measures.gain import best_choice, gain_share


def test_random_places_have_no_share_on_average() -> None:
    errors = np.random.default_rng(0).exponential(size=(200, 3))
    shares = [gain_share(errors, np.random.default_rng(seed).integers(3, size=200)) for seed in range(200)]
    assert abs(np.mean(shares)) < 0.02


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**31))
def test_the_best_choice_is_the_best_of_all(granularities, regions, seed) -> None:
    generator = np.random.default_rng(seed)
    errors, grains = generator.normal(size=(regions, granularities)), generator.integers(granularities, size=regions)
    counts = np.bincount(grains, minlength=granularities)
    found = best_choice(errors, counts)
    assert np.bincount(found, minlength=granularities).tolist() == counts.tolist()
    totals = [
        errors[np.arange(regions), list(each)].sum()
        for each in itertools.product(range(granularities), repeat=regions)
        if np.bincount(each, minlength=granularities).tolist() == counts.tolist()
    ]
    assert errors[np.arange(regions), found].sum() == pytest.approx(min(totals))
