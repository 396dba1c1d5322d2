"""Figures and their confidence intervals."""

import numpy as np
import pytest

from vltok.evaluation.values import Value, mean_value


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    found = mean_value(values)
    assert found.value == pytest.approx(values.mean())
    # of a normal sample: 1.96 standard errors on either side
    error = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - error, abs=0.03)
    assert found.high == pytest.approx(values.mean() + error, abs=0.03)
    assert mean_value(values) == found


def test_one_picture_has_no_interval():
    assert mean_value(np.array([3.0])) == Value(3.0)
    assert mean_value(np.array([3.0, np.nan])).low is None


def test_as_json_and_in_words():
    assert Value(1.5, 1.0, 2.0).to_json() == {"value": 1.5, "low": 1.0, "high": 2.0}
    assert Value(float("nan")).to_json() == {"value": None}
    assert Value(24.126, 24.0, 24.25).shown() == "24.13 (24 to 24.25)"
    assert Value(2.0, deviation=0.5).shown() == "2 ± 0.5" and Value(2.0).shown() == "2"
