"""The recipe trains, and what it leaves is drawn from and measured by vltok's own commands; nobody is told bits."""

import json
from pathlib import Path

import pytest
import yaml

import vltok
from vltok.cli.main import main
from vltok_masked import Masked, MaskedSampling

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart_masked.yaml"
TOKENIZER = {
    "encoder": {"class_path": "patch", "init_args": {"factors": [4, 8], "width": 8, "blocks": 1, "channels": 8}},
    "gate": {"class_path": "random", "init_args": {"ratios": {4: 0.5, 8: 0.5}}},
    "quantizer": {"class_path": "vq", "init_args": {"size": 32, "dimension": 4}},
    "decoder": {"class_path": "pixel-shuffle", "init_args": {"factor": 4, "channels": 8, "width": 8, "blocks": 1}},
}
PICTURES = ("--data=photos", "--data.size=32", "--data.batch_size=4")


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> Path:
    """The bundle of a prior of the recipe that was trained for two steps, on codes of an untrained tokenizer."""
    folder = tmp_path_factory.mktemp("masked")
    vltok.save_tokenizer(vltok.build({"class_path": "dq-vae", "init_args": TOKENIZER}), folder / "tokenizer")
    for split in ("train", "val"):
        crops = ("--split", split, f"--data.{split}_crops=8")
        run("tokenize", "--tokenizer", folder / "tokenizer", *PICTURES, *crops, "--out", folder / split)
    data = (f"--data.root={folder / 'train'}", f"--data.validation={folder / 'val'}", "--data.token_budget=512")
    smaller = ("--model.prior.transformer={width: 16, heads: 2, layers: 1}", "--trainer.max_steps=2")
    run("fit", "--config", RECIPE, *data, *smaller, "--trainer.precision=32-true", "--out", folder / "run")
    return folder / "run" / "bundle"


def test_the_recipe_trains_and_says_no_bits(prior):
    values = json.loads((prior.parent / "metrics.json").read_text())["values"]
    assert {"loss", "content", "granularity"} <= set(values)
    assert not [name for name in values if "bits" in name or "per_code" in name or "unigram" in name]
    assert "bits" not in (prior / "README.md").read_text()
    assert (prior.parent / "samples.png").is_file()
    loaded = vltok.load_prior(prior)
    assert isinstance(loaded, Masked) and loaded.grain_model.transformer.width == 16
    assert "vltok-masked" in (prior / "config.yaml").read_text()


def test_options_of_its_own_are_options_of_the_command(prior, tmp_path):
    options = ("--steps=3", "--choice-temperature=1", "--max-codes=40")
    run("sample", "--prior", prior, "--count=3", *options, "--out", tmp_path / "samples")
    assert len(list((tmp_path / "samples" / "pictures").glob("*.png"))) == 3
    drawn = vltok.sample(prior, 2, sampling=MaskedSampling(steps=1, codes=40))
    assert drawn.codes.lengths.tolist() == [40, 40]


def test_it_is_measured_without_bits(prior, tmp_path):
    run("evaluate", "--prior", prior, "--count=4", *PICTURES, "--data.val_crops=4", "--out", tmp_path / "evaluated")
    values = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())["values"]
    assert "content" in values and not [name for name in values if "bits" in name]
    for page in ("report.html", "README.md"):
        if (tmp_path / "evaluated" / page).is_file():
            assert "bits an image" not in (tmp_path / "evaluated" / page).read_text()


def test_a_table_of_ablations_has_no_bits(prior, tmp_path):
    table = tmp_path / "table"
    table.mkdir()
    folder = prior.parents[1]
    data = {"data.root": str(folder / "train"), "data.validation": str(folder / "val"), "data.token_budget": 512}
    changes = {"model.prior.transformer.width": 16, "model.prior.transformer.heads": 2, **data, "trainer.max_steps": 1}
    columns = [{"key": "content"}, {"key": "bits_per_image"}]
    described = {"title": "Masked", "source": "MaskGIT", "base": str(RECIPE), "columns": columns}
    (table / "table.yaml").write_text(yaml.safe_dump(described))
    (table / "row.yaml").write_text(yaml.safe_dump(changes))
    run("ablate", table, "--out", tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    assert "bits_per_image" not in json.dumps({key: value for key, value in row.items() if value})
