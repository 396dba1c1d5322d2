"""That a gate's choice is compared with others in the same tokenizer, at equal length."""

from pathlib import Path

import pytest

import vltok
from tests.cli.runs import dq_vae
from vltok.io import yaml_text

from .choices import ENTROPY, OWN, RANDOM, SHARES, curves, errors, measure, table


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
