"""Figures and their confidence intervals."""

import numpy as np
import pytest

from vltok.evaluation.values import Value, mean_value, value_lines


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
    assert Value(24.126, 24.0, 24.25).shown(".2f", "dB") == "24.13 dB (24.00 to 24.25)"
    assert Value(2.0, deviation=0.5, note="few").shown(".4g") == "2 ± 0.5, few" and Value(2.0).shown(".4g") == "2"
    assert value_lines({"psnr": Value(24.126), "ssim": Value(0.5), "length_std": Value(3.0)}) == [
        "  PSNR                  ↑ 24.13 dB",
        "  SSIM                  ↑ 0.500",
        "  spread of code length   3.0 codes",
    ]
