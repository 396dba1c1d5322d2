"""The recipe trains as it stands, and vltok's commands take what it trains."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import vltok
from vltok.cli.main import main
from vltok_tail_drop.lengths import FixedLength

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart_tail_drop.yaml"
SMALLER = ["--data.batch_size=4", "--data.train_crops=8", "--data.val_crops=4"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main(["fit", "--config", str(RECIPE), "--out", str(folder), *SMALLER, "--trainer.max_steps=2"]) == 0
    return folder / "bundle"


def test_the_recipe_trains(bundle):
    record = json.loads((bundle.parent / "metrics.json").read_text())
    assert record["values"]["expected_length"]["value"] == 16 and record["codes"]["unseen"]["ratios"] == {}
    assert "vltok-tail-drop" in (bundle / "config.yaml").read_text()
    tokenizer = vltok.load_tokenizer(bundle)
    assert tokenizer.length_policy.threshold > 0
    assert tokenizer.spec == vltok.CodeSpec(64, max_length=32)


def test_its_codes_are_exported_and_decoded(bundle, tmp_path):
    codes, decoded = tmp_path / "codes", tmp_path / "decoded"
    assert main(["tokenize", "--tokenizer", str(bundle), "--split=val", *SMALLER, "--out", str(codes)]) == 0
    manifest = json.loads((codes / "codes.json").read_text())
    assert manifest["statistics"]["samples"] == 4 and manifest["statistics"]["length"]["maximum"] <= 32
    assert main(["detokenize", str(codes), "--tokenizer", str(bundle), "--out", str(decoded)]) == 0
    assert len(list(decoded.rglob("*.png"))) == 4


def test_pictures_of_any_size_come_back(bundle, tmp_path):
    Image.effect_noise((150, 70), 40).convert("RGB").save(tmp_path / "picture.png")
    picture, out = str(tmp_path / "picture.png"), tmp_path / "out"
    assert main(["reconstruct", picture, "--tokenizer", str(bundle), "--out", str(out)]) == 0
    with Image.open(out / "picture.png") as reconstruction:
        assert reconstruction.size == (150, 70)


def test_it_is_measured(bundle, tmp_path):
    assert main(["evaluate", "--tokenizer", str(bundle), *SMALLER, "--out", str(tmp_path / "evaluated")]) == 0
    assert "psnr" in (tmp_path / "evaluated" / "metrics.json").read_text()


def test_another_image_size_is_refused_before_training(tmp_path, capsys):
    assert main(["fit", "--config", str(RECIPE), "--out", str(tmp_path / "run"), "--data.size=128"]) == 1
    assert "data.size is 128, but this tokenizer takes images of 64 × 64 only" in capsys.readouterr().err


def test_a_trained_tokenizer_takes_any_length(bundle):
    tokenizer = vltok.load_tokenizer(bundle)
    tokenizer.length_policy = FixedLength(5)
    assert tokenizer.encode(torch.zeros(2, 3, 64, 64)).lengths.tolist() == [5, 5]
