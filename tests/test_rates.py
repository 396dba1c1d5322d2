import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltok.codes import Ratios
from vltok.errors import UserError
from vltok.rates import Rate, RateCalibration

THIRDS = Ratios((16, 8, 4), (0.3333333334, 0.3333333333, 0.3333333333))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("codes=400", "codes", 400),
        ("codes = 400", "codes", 400),
        ("ratios=4:0.3333333333,8:0.3333333333,16:0.3333333334", "ratios", THIRDS),
        ("max-codes=400.0", "max-codes", 400),
        ("mean-codes=180.5", "mean-codes", 180.5),
        (" bpp=0.2 ", "bpp", 0.2),
        ("psnr=30", "psnr", 30),
        ("ssim=0.9", "ssim", 0.9),
        ("lpips=1e-2", "lpips", 0.01),
        ("threshold=-0.25", "threshold", -0.25),
        ("ratios=8:0.25,16:0.75", "ratios", Ratios((16, 8), (0.75, 0.25))),
        ("ratios={8: 0.25, 16: 0.75}", "ratios", Ratios((16, 8), (0.75, 0.25))),
    ],
)
def test_a_text_says_a_rate(text, kind, value):
    rate = Rate.of(text)
    assert rate == Rate(kind, value)
    assert Rate.of(str(rate)) == rate
    measured = Rate(kind, value, measured=True)
    assert Rate.of(f"{text.strip()},measured") == measured == Rate.of(str(measured))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code=400", "did you mean 'codes'"),
        ("CODES=400", "did you mean 'codes'"),
        ("40", "rate '40' does not say what it is: codes=40 are exactly so many, max-codes=40 at most, mean-codes=40"),
        ("0.2", "does not say what it is"),
        ("", "does not say what it is: codes=400 are"),
        ("-40", "there are: codes"),
        ("nan", "there are: codes"),
        ("codes", "such as codes=400"),
        ("codes=", "such as codes=400"),
        ("codes=400,psnr=30", "one kind and its value"),
        ("codes=400,codes=400", "one kind and its value"),
        ("codes=nan", "whole number"),
        ("codes=inf", "whole number"),
        ("max-codes=-3", "at least 1"),
        ("mean-codes=1e400", "positive"),
        ("ratios=8:0.5,8:0.5", "name each factor once"),
        ("ratios=8:nan,16:0.5", "sum to 1"),
        ("ratios=8:-0.5,16:1.5", "at least 0"),
        ("codes=many", "such as codes=400"),
        ("codes=0", "at least 1"),
        ("codes=3.5", "whole number"),
        ("psnr=-3", "positive"),
        ("psnr=inf", "positive"),
        ("bpp=nan", "positive"),
        ("bpp=0", "positive"),
        ("ssim=1.2", "(0, 1]"),
        ("threshold=nan", "number"),
        ("ratios=8:0.5", "sum to 1"),
        ("ratios=0.5", "such as ratios=8:0.5,16:0.5"),
        ("ratios=", "such as ratios=8:0.5,16:0.5"),
    ],
)
def test_a_text_that_says_none_is_refused(text, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace("[", r"\[")):
        Rate.of(text)


def test_numbers_are_checked_in_python_too():
    with pytest.raises(UserError, match="keyed by factor"):
        Rate("ratios", 0.5)
    with pytest.raises(UserError, match="keyed by factor"):
        Rate("codes", Ratios((8,), (1.0,)))
    with pytest.raises(UserError, match="whole number"):
        Rate("codes", 0.5)


def test_a_calibration_reads_what_it_wrote_and_finds_thresholds_between():
    calibration = RateCalibration((4.0, 1.0, -1.0), (0.25, 0.5, 1.0), 12, "photographs")
    assert RateCalibration.read(calibration.text("a1"), "a1") == calibration
    with pytest.raises(UserError, match="another tokenizer"):
        RateCalibration.read(calibration.text("a1"), "b2")
    assert calibration.threshold(0.25) == 4.0
    assert math.isclose(calibration.threshold(0.375), 2.5)
    assert calibration.threshold(0.75) == 0.0
    with pytest.raises(UserError, match="outside what was measured"):
        calibration.threshold(0.1)


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=20), st.floats(0, 1))
def test_more_codes_never_have_a_higher_threshold(values, share):
    thresholds = tuple(sorted(values, reverse=True))
    shares = tuple(place / (len(values) - 1) for place in range(len(values)))
    calibration = RateCalibration(thresholds, shares, 1)
    assert calibration.threshold(share) >= calibration.threshold(min(share + 0.1, 1.0)) - 1e-9


_NOT_A_NUMBER = '{"version": 1, "tokenizer": "", "thresholds": [NaN, 1], "shares": [0, 1], "pictures": 1, "data": ""}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        _NOT_A_NUMBER,
        '{"version": 9}',
        '{"version": 1, "tokenizer": "", "thresholds": [1], "shares": []}',
    ],
)
def test_what_is_no_calibration_is_refused(text):
    with pytest.raises(UserError):
        RateCalibration.read(text, "")
