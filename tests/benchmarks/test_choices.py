"""That a gate's choice is compared with others in the same tokenizer, at equal length."""

from pathlib import Path

import pytest

import vltok
from tests.cli.runs import dq_vae
from vltok.io import yaml_text

from .choices import (
    ENTROPY,
    OWN,
    RANDOM,
    SHARES,
    curves,
    errors,
    measure,
    measure_fixed,
    of_lengths,
    over_lengths,
    table,
)


def test_choices_have_equal_lengths_and_other_places(tmp_path: Path) -> None:
    recipe = yaml_text.load(dq_vae("gain, init_args: {channels: 8, ratios: {4: 0.5, 8: 0.5}}"))
    vltok.save_tokenizer(vltok.build(recipe["model"]["init_args"]["tokenizer"]), tmp_path / "bundle")
    found = measure(str(tmp_path / "bundle"), size=16, pictures=6)
    assert list(found) == [OWN, ENTROPY, RANDOM]
    for share in SHARES:
        for choices in found.values():
            mean = sum(choices[share].lengths) / 6
            assert mean == pytest.approx(4 * (1 + 3 * share), abs=0.5)
    assert len({tuple(choices[0.5].errors) for choices in found.values()}) == 3
    assert table([found, found]).count("± 0.00") == 3 * len(SHARES)
    (axes,) = curves([found]).axes
    assert [line.get_label() for line in axes.containers] == [OWN, ENTROPY] and errors(found) is not None


def test_three_granularities_stand_beside_fixed_lengths(tmp_path: Path) -> None:
    def write(name: str, factors: list[int], gate: str) -> str:
        recipe = yaml_text.load(dq_vae(gate).replace("[4, 8]", str(factors)))
        recipe["model"]["init_args"]["tokenizer"]["init_args"]["decoder"]["init_args"]["factor"] = factors[0]
        vltok.save_tokenizer(vltok.build(recipe["model"]["init_args"]["tokenizer"]), tmp_path / name)
        return str(tmp_path / name)

    gain = "gain, init_args: {channels: 8, ratios: {4: 0.2, 8: 0.4, 16: 0.4}}"
    found = measure(write("triple", [4, 8, 16], gain), size=32, pictures=6)
    assert sum(found[OWN][0.5].lengths) / 6 == pytest.approx(4 * (1 + 15 * 0.5), abs=12 / 6)  # to a region
    fixed = [measure_fixed(write(f"fixed{factor}", [factor], "fixed"), 32, 6) for factor in (4, 8, 8)]
    assert list(of_lengths(fixed)) == [16.0, 64.0]
    (axes,) = over_lengths([found], fixed).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [5, 5, 5, 2]
