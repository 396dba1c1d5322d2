"""Every recipe is parsed, built, and trained for two steps at a reduced size on real photographs."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

import vltok
from vltok.cli.main import main
from vltok.codes import CodeSpec

from .recipe_steps import PAPER_SIZE, recipe_of, spec_of, trains_prior
from .sequences.code_exports import export_codes, export_samples, mixed_samples, random_codes

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


TOKENIZER_RECIPES = [path for path in RECIPES if not trains_prior(path)]
PRIOR_RECIPES = [path for path in RECIPES if trains_prior(path)]


@pytest.mark.parametrize("path", PAPER_SIZE, ids=ids)
def test_the_head_of_a_recipe_tells_its_parameters(path: Path) -> None:
    spec = {}
    if path in PRIOR_RECIPES:
        spec = {f"model.prior.spec.{key}": value for key, value in dataclasses.asdict(spec_of(path)).items() if value}
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
            *("--data", "photos", "--data.size=32", "--data.batch_size=2"),
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
    "sequence": ("layers",),
}


@pytest.mark.parametrize("path", PRIOR_RECIPES, ids=ids)
def test_a_prior_trains_for_two_steps(path, tmp_path, capsys):
    prior = recipe_of(path)["model"]["init_args"]["prior"]
    spec = CodeSpec(24, (4,) if prior["class_path"] == "sequence" else (4, 8))
    for split, count in (("train", 8), ("val", 4)):
        if "sizes" in path.name:
            export_samples(tmp_path / split, mixed_samples(count, [(2, 3), (3, 2)]))
            continue
        codes = random_codes(count, spec, (2, 2))
        if "text_encoder" in prior["init_args"]:
            codes = dataclasses.replace(codes, texts=("a cat",) * count)
        if (size := prior["init_args"].get("embedding_size")) is not None:
            codes = dataclasses.replace(codes, embeddings=torch.randn(count, size))
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
