"""The options of drawing: their ranges, and what a prior does not have."""

from dataclasses import dataclass
from math import inf, nan

import numpy as np
import pytest
import torch

from vltok.drawing.config import SamplingConfig, SamplingOptions, VariableLengthSampling, at_rate, options_for
from vltok.errors import UserError
from vltok.rates import Rate


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        *(({"temperature": value}, "temperature must be a positive number") for value in (0.0, -1.0, inf, nan)),
        *(({"position_temperature": value}, "position_temperature must be a positive number") for value in (-inf, nan)),
        *(({"top_k": value}, "top_k must be a whole number, not") for value in (nan, 1.5, True, "all")),
        *(({"position_top_k": value}, "position_top_k must be at least 1") for value in (0, -3)),
        *(({"top_p": value}, r"top_p must lie in \(0, 1\]") for value in (0.0, -0.1, 1.1, inf, nan)),
        *(({"guidance": value}, "guidance must be a finite number") for value in (inf, -inf, nan)),
        *(({name: value}, f"{name} must be a whole") for name in ("codes", "max_codes") for value in (6.5, nan, True)),
        ({"ratios": {1: nan, 2: 0.5}}, "sum to 1"),
        ({"ratios": {1.5: 1.0}}, "a factor in ratios must be a whole number, not 1.5"),
        ({"ratios": {}}, "sum to 1"),
        ({"positions": "implicit"}, "no positions is called 'implicit'; .* did you mean 'implied'"),
        ({"precision": "float16"}, "no precision is called 'float16'; .* did you mean 'bfloat16'"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused_at_the_start(option, message):
    with pytest.raises(UserError, match=message) as refused:
        SamplingConfig(**option)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("unchecked")
def test_whole_numbers_of_other_libraries_are_whole_numbers():
    sampling = SamplingConfig(top_k=np.int64(3), codes=torch.tensor(6))
    assert (type(sampling.top_k), type(sampling.codes)) == (int, int)


def test_options_that_a_prior_does_not_have_are_refused_by_name():
    assert options_for(SamplingOptions, "Bag", SamplingConfig(top_k=3)) == SamplingOptions(top_k=3)
    message = (
        r"^codes is 7, but Bag has no such option: leave it out; those that it has are temperature, top_k, top_p, "
        r"guidance, precision, regions$"
    )
    with pytest.raises(UserError, match=message):
        options_for(SamplingOptions, "Bag", SamplingConfig(codes=7))
    with pytest.raises(UserError, match="positions is implied"):
        options_for(VariableLengthSampling, "RasterScan", SamplingConfig(positions="implied"))


def test_a_prior_may_have_options_of_its_own():
    @dataclass(frozen=True)
    class Beams(SamplingOptions):
        beams: int = 1

    assert options_for(Beams, "BeamSearch", SamplingConfig(top_p=0.5)) == Beams(top_p=0.5)
    own = Beams(beams=4)
    assert options_for(Beams, "BeamSearch", own) is own
    with pytest.raises(UserError, match="beams is 4"):
        options_for(SamplingConfig, "DQTransformer", own)


def test_a_rate_controls_the_length():
    assert at_rate(SamplingConfig(top_k=5), Rate.of("codes=40")) == SamplingConfig(top_k=5, codes=40)
    assert at_rate(VariableLengthSampling(), Rate.of("max-codes=40")).max_codes == 40
    assert at_rate(SamplingConfig(), Rate.of("ratios=8:0.5,16:0.5")).ratios == {16: 0.5, 8: 0.5}
    for options, rate, message in (
        (SamplingConfig(), "psnr=30", "there is no picture to compare with"),
        (SamplingOptions(), "codes=40", "no control of the code length"),
        (SamplingConfig(codes=3), "max-codes=4", "max_codes and codes all set the length"),
    ):
        with pytest.raises(UserError, match=message):
            at_rate(options, Rate.of(rate))
