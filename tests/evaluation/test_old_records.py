"""The `metrics.json` that version 0.1.0 wrote: each of its forms is read as a record."""

import json
from pathlib import Path

import pytest

import vltok
from vltok.evaluation.records import Record

KEPT = Path(__file__).with_name("records_0_1_0")


def test_the_figures_of_fit_have_their_present_names() -> None:
    record = Record.read(KEPT / "fit_tokenizer")
    old = json.loads((KEPT / "fit_tokenizer" / "metrics.json").read_text())
    assert record.kind == "tokenizer" and record.of_training and record.protocol["steps"] == 2
    assert record.values["psnr"].value == record.figure("psnr") == old["psnr"]
    assert record.values["length"].value == record.figure("unseen_mean_length") == old["unseen_mean_length"]
    assert record.values["length_of_training"].value == record.figure("mean_length") == old["mean_length"]
    assert record.values["ratio_8_of_training"].value == record.figure("ratios.8") == old["ratios"]["8"]
    assert record.figure("adaptation.error_correlation") == old["adaptation"]["error_correlation"]
    assert not {"images", "regions", "margin_gain_correlation"} & set(record.values)


def test_a_prior_of_fit() -> None:
    record = Record.read(KEPT / "fit_prior")
    assert record.kind == "prior" and record.of_training
    assert record.figure("bits_per_code") > 0 and record.figure("unigram_per_code") > 0


def test_reconstructed_pictures() -> None:
    record = Record.read(KEPT / "reconstruct")
    old = json.loads((KEPT / "reconstruct" / "metrics.json").read_text())
    assert [image["name"] for image in record.images] == ["coffee", "cat"]
    assert record.values["length"].value == old["mean"]["code_length"]
    assert record.values["ratio_8"].value == old["mean"]["ratios"]["8"]
    assert record.values["gain_share"].value == old["adaptation"]["gain_share"]


@pytest.mark.parametrize("kind", ["tokenizer", "prior", "codec"])
def test_evaluations(kind: str) -> None:
    record = Record.read(KEPT / f"evaluate_{kind}")
    assert record.kind == kind and record.values and not record.of_training


def test_they_are_compared() -> None:
    folders = [KEPT / name for name in ("fit_tokenizer", "evaluate_tokenizer", "evaluate_codec")]
    found = vltok.compare(folders)
    assert len(found.comparison.records) == 3 and found.files == ()
    # of other data, so that it shares no column with an evaluation
    assert "ssim" in found.comparison.columns and "psnr" not in found.comparison.columns
    assert any("'psnr'" in note for note in found.comparison.notes)
