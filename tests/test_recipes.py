"""Every recipe is parsed, built, and trained for two steps at a reduced size on real photographs."""

import contextlib
import dataclasses
import functools
import io
import re
from pathlib import Path

import pytest
import torch
import yaml

import vltok
from vltok.cli.main import main
from vltok.codes import CodeSpec
from vltok.io.recipe_files import with_bases
from vltok.io.recipes import read
from vltok.verbs.training_recipe import TrainingRecipe

from .sequences.code_exports import export_codes, random_codes

ROOT = Path(__file__).parents[1]
#: Beside a table.yaml stand rows, which change a recipe and are none (tests/evaluation/test_ablations.py).
RECIPES = sorted(path for path in ROOT.glob("recipes/**/*.yaml") if not (path.parent / "table.yaml").is_file())
TOKENIZER = "--model.tokenizer"

#: Small enough for seconds on a CPU; everything else stays as the recipe says.
SMALLER = {
    "vqgan": [
        f"{TOKENIZER}.encoder.width=32",
        f"{TOKENIZER}.encoder.blocks=1",
        f"{TOKENIZER}.encoder.channels=32",
        f"{TOKENIZER}.quantizer.dimension=32",
        f"{TOKENIZER}.decoder.width=32",
        f"{TOKENIZER}.decoder.blocks=1",
    ],
    "patch": [
        f"{TOKENIZER}.encoder.width=32",
        f"{TOKENIZER}.encoder.channels=32",
        f"{TOKENIZER}.decoder.width=32",
    ],
}


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


@functools.cache
def recipe_of(path: Path) -> dict:
    """The whole of a recipe, with what its bases say; a prior's lacks what follows from the codes."""
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        TrainingRecipe.of_arguments(["--config", str(path), "--print_config"])
    return yaml.safe_load(text.getvalue())


def trains(path: Path, part: str) -> bool:
    return part in read(with_bases(path, read)[0])["model"]["init_args"]


TOKENIZER_RECIPES = [path for path in RECIPES if trains(path, "tokenizer")]
PRIOR_RECIPES = [path for path in RECIPES if trains(path, "prior")]


def spec_of(path: Path) -> CodeSpec:
    """What the codes are that a prior's recipe names: those of the run of a tokenizer's recipe."""
    run = Path(recipe_of(path)["data"]["init_args"]["root"]).parts[1].removesuffix("_codes")
    tokenizer = recipe_of(ROOT / "recipes" / f"{run}.yaml")
    with torch.device("meta"):
        spec = vltok.build(tokenizer, "model.tokenizer").spec
    side = tokenizer["data"]["init_args"]["size"] // spec.factors[0]
    return dataclasses.replace(spec, regions=(side, side))


PAPER_SIZE = [path for path in sorted((ROOT / "recipes").glob("*.yaml")) if not path.name.startswith("quickstart")]


@pytest.mark.parametrize("path", PAPER_SIZE, ids=ids)
def test_the_head_of_a_recipe_tells_its_parameters(path: Path) -> None:
    spec = {}
    if path in PRIOR_RECIPES:
        spec = {f"model.prior.{key}": value for key, value in dataclasses.asdict(spec_of(path)).items() if value}
    with torch.device("meta"):
        model = vltok.build(path, "model.prior" if spec else "model.tokenizer", spec)
    (told,) = re.findall(r"^# ([\d.]+)M parameters; ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert told == f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}"


def test_there_are_recipes():
    assert len(TOKENIZER_RECIPES) >= 10 and len(PRIOR_RECIPES) >= 14


@pytest.mark.parametrize("path", RECIPES, ids=ids)
def test_opens_with_what_it_is_and_the_command_that_runs_it(path):
    title, command = path.read_text(encoding="utf-8").splitlines()[:2]
    assert title.startswith("# ")
    assert command.startswith(f"# vltok fit --config {path.relative_to(ROOT).as_posix()}")


@pytest.mark.parametrize("path", TOKENIZER_RECIPES, ids=ids)
def test_a_tokenizer_trains_for_two_steps(path, tmp_path, capsys):
    encoder = recipe_of(path)["model"]["init_args"]["tokenizer"]["init_args"]["encoder"]["class_path"]
    smaller = SMALLER[encoder]
    if recipe_of(path)["model"]["init_args"].get("discriminator"):
        smaller = [*smaller, "--model.discriminator.width=8"]
    code = main(
        [
            *("fit", "--config", str(path), "--out", str(tmp_path / "run"), *smaller),
            *("--model.perceptual", "none", "--model.calibration_batches=1"),
            *("--data", "photos", "--data.size=64", "--data.batch_size=2"),
            *("--data.train_crops=4", "--data.val_crops=2"),
            *("--trainer.max_steps=2", "--trainer.precision=32-true", "--trainer.accelerator=cpu"),
        ]
    )
    assert code == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "bundle" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "metrics.json").is_file()


#: The layers of each prior's transformers.
LAYERS = {
    "dq-transformer": ("position_layers", "content_layers"),
    "raster-scan": ("position_layers", "content_layers"),
    "global-local": ("global_layers", "local_layers"),
    "fixed-raster": ("layers",),
}


@pytest.mark.parametrize("path", PRIOR_RECIPES, ids=ids)
def test_a_prior_trains_for_two_steps(path, tmp_path, capsys):
    prior = recipe_of(path)["model"]["init_args"]["prior"]
    spec = CodeSpec(24, (4,) if prior["class_path"] == "fixed-raster" else (4, 8))
    for split, count in (("train", 8), ("val", 4)):
        codes = random_codes(count, spec, (2, 2))
        export_codes(tmp_path / split, codes, spec=spec, classes=prior["init_args"].get("classes"))
    code = main(
        [
            *("fit", "--config", str(path), "--out", str(tmp_path / "run")),
            *(f"--data.root={tmp_path / 'train'}", f"--data.validation={tmp_path / 'val'}", "--data.workers=0"),
            *("--model.prior.width=16", "--model.prior.heads=2", "--data.token_budget=2100"),
            *(f"--model.prior.{layers}=1" for layers in LAYERS[prior["class_path"]]),
            *("--trainer.max_steps=2", "--trainer.precision=32-true", "--trainer.accelerator=cpu"),
        ]
    )
    assert code == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "bundle" / "model.safetensors").is_file()
    assert "bits_per_code" in (tmp_path / "run" / "metrics.json").read_text()
