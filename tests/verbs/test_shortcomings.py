"""What a training has not reached is told at its end, with the remedy."""

import re

import pytest
import yaml

import vltok
from vltok.evaluation.records import Record
from vltok.evaluation.values import Value
from vltok.verbs.shortcomings import shortcomings

from ..cli.runs import dq_vae

BUDGET = {"class_path": "ratio", "init_args": {"ratios": {4: 0.5, 8: 0.5}}}
#: Of a tokenizer that reached what was asked of it: 4 regions an image, half of them fine, 16 codes in the codebook.
REACHED = {
    "length_of_training": 10.0,
    "expected_length": 10.0,
    "ratio_4_of_training": 0.5,
    "ratio_8_of_training": 0.5,
    "codebook_usage": 1.0,
    "length": 10.0,
}


@pytest.mark.parametrize(
    ("figures", "held", "said"),
    [
        ({}, False, []),
        ({"length_of_training": 10.4}, False, []),
        ({"length_of_training": 4.0}, False, ["4.0 codes on average, where the recipe asks for 10.0: train longer"]),
        ({"length_of_training": 12.0}, True, ["12.0 codes .* train longer, or give the budget more weight"]),
        ({"ratio_4_of_training": 0.6, "ratio_8_of_training": 0.4}, False, [r"ratios are .*4: 0\.60.*asks for"]),
        ({"codebook_usage": 0.0625}, False, ["1 of 16 codes are used: the codebook has collapsed; .*ema-vq"]),
        ({"codebook_usage": 0.0625, "length": 1.0}, False, []),  # too few were looked at to say so
    ],
)
def test_what_is_missed_is_said(figures: dict[str, float], held: bool, said: list[str]) -> None:
    recipe = yaml.safe_load(dq_vae("entropy, init_args: {ratios: {4: 0.5, 8: 0.5}}"))["model"]["init_args"]["tokenizer"]
    if held:
        recipe["init_args"]["budget"] = BUDGET
    values = {name: Value(figure) for name, figure in {**REACHED, **figures}.items()}
    record = Record("tokenizer", {}, values, {}, {"data": {"images": 9}}, {})
    found = list(shortcomings(record, vltok.build(recipe)))
    assert len(found) == len(said)
    for line, pattern in zip(found, said, strict=True):
        assert re.search(pattern, line)
