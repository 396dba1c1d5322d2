"""The recipe trains as it stands, and vltok's commands take what it trains."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vltok
from vltok.cli.main import main
from vltok_tail_drop.lengths import FixedLength

RECIPES = Path(__file__).parents[1] / "recipes"
RECIPE = RECIPES / "quickstart_tail_drop.yaml"
SMALLER = ["--data.batch_size=4", "--data.train_crops=8", "--data.val_crops=4"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main(["fit", "--config", str(RECIPE), "--out", str(folder), *SMALLER, "--trainer.max_steps=2"]) == 0
    return folder / "bundle"


def test_the_recipe_trains(bundle):
    record = json.loads((bundle.parent / "metrics.json").read_text())
    assert record["values"]["expected_length"]["value"] == 32 and record["codes"]["unseen"]["ratios"] == {}
    assert "vltok-tail-drop" in (bundle / "config.yaml").read_text()
    tokenizer = vltok.load_tokenizer(bundle)
    assert tokenizer.length_policy.threshold > 0
    assert tokenizer.spec == vltok.CodeSpec(512, max_length=64)


def test_its_codes_are_exported_and_decoded(bundle, tmp_path):
    codes, decoded = tmp_path / "codes", tmp_path / "decoded"
    assert main(["tokenize", "--tokenizer", str(bundle), "--split=val", *SMALLER, "--out", str(codes)]) == 0
    manifest = json.loads((codes / "codes.json").read_text())
    assert manifest["statistics"]["samples"] == 4 and manifest["statistics"]["length"]["maximum"] <= 64
    assert main(["detokenize", str(codes), "--tokenizer", str(bundle), "--out", str(decoded)]) == 0
    assert len(list(decoded.rglob("*.png"))) == 4


@pytest.fixture(scope="module")
def prior(bundle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prior")
    for split in ("train", "val"):
        out = ("--out", str(folder / split))
        assert main(["tokenize", "--tokenizer", str(bundle), f"--split={split}", *SMALLER, *out]) == 0
    data = (f"--data.root={folder / 'train'}", f"--data.validation={folder / 'val'}")
    recipe = str(RECIPES / "quickstart_tail_drop_prior.yaml")
    assert main(["fit", "--config", recipe, *data, "--out", str(folder / "run"), "--trainer.max_steps=2"]) == 0
    return folder / "run" / "bundle"


def test_a_built_in_prior_learns_and_draws_its_codes(prior, tmp_path):
    values = json.loads((prior.parent / "metrics.json").read_text())["values"]
    assert values["length"]["value"] > 0 and values["bits_per_image"]["value"] > 0
    sample = ["sample", "--prior", str(prior), "--count=3", "--codes=5", "--out", str(tmp_path / "samples")]
    assert main(sample) == 0
    assert len(list((tmp_path / "samples" / "pictures").glob("*.png"))) == 3
    evaluate = ["evaluate", "--prior", str(prior), "--count=3", *SMALLER, "--out", str(tmp_path / "evaluated")]
    assert main(evaluate) == 0
    assert "length_of_samples" in (tmp_path / "evaluated" / "metrics.json").read_text()
    drawn = vltok.sample(prior, 2, sampling=vltok.SamplingConfig(max_codes=7))
    assert drawn.codes.lengths.max() <= 7 and drawn.pictures.shape == (2, 3, 64, 64)


def test_files_under_a_prior_come_back(bundle, prior, tmp_path):
    Image.effect_noise((64, 64), 40).convert("RGB").save(tmp_path / "picture.png")
    models = ["--tokenizer", str(bundle), "--prior", str(prior)]
    assert main(["compress", str(tmp_path / "picture.png"), *models, "--out", str(tmp_path / "files")]) == 0
    assert main(["decompress", str(tmp_path / "files"), *models, "--out", str(tmp_path / "back")]) == 0
    with Image.open(tmp_path / "back" / "picture.png") as found:
        expected = vltok.reconstruct(str(bundle), str(tmp_path / "picture.png")).pictures[0].pixels
        assert (np.asarray(found) == np.asarray(expected)).all()


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
