"""Every command in the README runs, in the order of the README's sections, on a few real photographs."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image

from vltok.cli.main import VERBS, main
from vltok.evaluation.ablations import AblationTable
from vltok.io.bundles import fingerprint
from vltok.io.recipes import parse
from vltok.verbs.training_recipe import fit_parser

from .cli.exports import PRIOR, write_bundle, write_prior
from .io.importers.foreign import vqgan_state

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    [line.partition(" #")[0].strip() for line in block.splitlines() if line.strip()]
    for block in re.findall(r"^```sh\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
]
COMMANDS = [command for block in BLOCKS for command in block]
VLTOK = [block for block in BLOCKS if block[0].startswith("vltok ")]

#: Appended to a training, so that it takes seconds: an option given twice counts the second time.
SMALL = {
    "recipes/quickstart.yaml": "--model.tokenizer.encoder.width=32 --model.tokenizer.decoder.width=32",
    "recipes/imagenet_dq.yaml": (
        "--model.tokenizer.encoder.width=32 --model.tokenizer.encoder.blocks=1 --model.tokenizer.encoder.channels=32 "
        "--model.tokenizer.gate.channels=32 --model.tokenizer.quantizer.dimension=32 "
        "--model.tokenizer.decoder.width=32 --model.tokenizer.decoder.blocks=1 --model.tokenizer.decoder.channels=32 "
        "--model.discriminator.width=8 --model.perceptual none --data.workers=0"
    ),
    "recipes/quickstart_prior.yaml": "--model.prior.codebook_size=300 --model.prior.width=24",
}
ONE_STEP = "--trainer.max_steps=1 --trainer.limit_val_batches=1 --trainer.accelerator=cpu --trainer.precision=32-true "
FEW = "--data.train_crops=8 --data.val_crops=8"
ON_IMAGES = "--model.calibration_batches=1 --data.size=64 --data.batch_size=2 "


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder as the README's reader has it: the recipes, some pictures, shards of them, a trained bundle."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "pictures").mkdir()
    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    for index in range(8):
        photograph = Image.fromarray(photographs[index % 4]).resize((90, 72))
        photograph.rotate(45 * index).save(tmp_path / "pictures" / f"{index}.jpg")
    write_bundle(tmp_path / "runs" / "quickstart" / "bundle")
    return tmp_path


def run(command: str) -> None:
    recipe = next(iter(re.findall(r"--config (\S+)", command)), None)
    if recipe is not None:
        small = "" if "--start" in command else SMALL[recipe]
        command = f"{command} {small} {ONE_STEP} {'' if 'prior' in recipe else ON_IMAGES}"
    if recipe == "recipes/quickstart.yaml" and "--data " not in command:
        command = f"{command} {FEW}"
    if "_crops" in command and FEW not in command:
        command = f"{re.sub('_crops [0-9]+', '_crops 40', command)} --data.size=64"
    if command.startswith("vltok ablate "):
        _, *others = (row for row in sorted(Path(command.split()[2]).glob("*.yaml")) if row.name != "table.yaml")
        for row in others:
            row.unlink()
        small = SMALL["recipes/quickstart_prior.yaml"]
        if "prior" not in command:
            small = f"{SMALL['recipes/quickstart.yaml']} {ON_IMAGES} {FEW}"
        command = f"{command.replace(' 0 1 2', ' 0')} {small} {ONE_STEP}"
    if command.startswith("vltok evaluate "):
        command = f"{command} --data.val_crops=8"
    if command.startswith("vltok rate "):
        command = f"{command} --training-pictures 8 --pictures 4 --points 2"
    assert main(shlex.split(command)[1:]) == 0, command


def test_every_verb_is_shown():
    assert {command.split()[1] for block in VLTOK for command in block} == set(VERBS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_the_two_commands_are_targets_that_run_what_they_say(command):
    planned = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True)
    steps = {
        "make quickstart": [
            "vltok fit --config recipes/quickstart.yaml",
            "vltok tokenize --tokenizer runs/quickstart/bundle",
            "vltok fit --config recipes/quickstart_prior.yaml",
            "vltok sample --prior runs/quickstart_prior/bundle",
        ],
        "make test": ["pytest"],
    }
    places = [planned.stdout.find(step) for step in steps[command]]
    assert -1 not in places and places == sorted(places)


def test_there_is_no_other_kind_of_command():
    assert {command.split()[0] for command in COMMANDS} == {"make", "vltok"}


@pytest.mark.parametrize("block", VLTOK, ids=lambda block: " ".join(block[-1].split()[:2]))
def test_commands_run_one_after_another(block, project, capsys, monkeypatch):
    monkeypatch.setattr("vltok.verbs.push.upload", lambda repository, *_: f"https://hub/{repository}")
    if any("shards/train-*" in command for command in block):
        run("vltok pack pictures shards/train-%06d.tar --count 4")
    if any("prior_orders" in command for command in block):
        for split in ("train", "val"):
            codes = f"--split {split} --data.{split}_crops 40 --out runs/quickstart_codes/{split}"
            run(f"vltok tokenize --tokenizer runs/quickstart/bundle {codes}")
    if any("vltok import" in command for command in block):
        torch.save({"state_dict": vqgan_state()}, "vqgan_imagenet_f16_16384.ckpt")
    for command in block:
        before = set(project.rglob("*"))
        run(command.partition(" > ")[0])
        shown = capsys.readouterr().out
        printed = {
            "plugins": "ema-vq",
            "push": "written: https://hub/user/vqgan",
            "info": "made by        vltok import",
            "recipes": "imagenet_dq",
            "doctor": "8 pictures can be used",
        }
        if (verb := command.split()[1]) in printed:
            assert printed[verb] in shown
        else:
            assert any(path.is_file() for path in set(project.rglob("*")) - before), command


def test_the_recipe_with_a_base_is_one(tmp_path):
    (text,) = re.findall(r"^```yaml\n(base: .*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    recipe = parse(fit_parser(), ["--config", str(tmp_path / "mine.yaml")])
    assert recipe.data.init_args.shards == "my-pictures-{000000..000063}.tar"
    assert recipe.model.init_args.tokenizer.init_args.budget.init_args.ratios == {8: 0.3, 16: 0.7}


def test_the_tables_of_results_exist():
    results = (ROOT / "recipes" / "RESULTS.md").read_text(encoding="utf-8")
    tables = re.findall(r"^vltok ablate (\S+)", results, flags=re.MULTILINE)
    assert len(tables) >= 5
    for table in tables:
        assert AblationTable.read(ROOT / table).rows, table


def test_the_files_that_it_names_exist():
    for linked in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / linked).exists(), linked
    for named in re.findall(r"^(vltok/\S*|recipes/|tests/)\s", README, flags=re.MULTILINE):
        assert (ROOT / named).exists(), named
    for recipe in re.findall(r"`(\w+\.yaml)`", README):
        assert recipe in ("config.yaml", "table.yaml") or (ROOT / "recipes" / recipe).exists(), recipe


def test_the_lines_of_python_run_one_after_another(project: Path) -> None:
    write_prior(project / "runs" / "quickstart_prior" / "bundle", PRIOR, fingerprint("runs/quickstart/bundle"))
    shutil.copytree("runs/quickstart/bundle", "runs/quickstart_prior/tokenizer")
    (project / "pictures" / "0.jpg").rename(project / "photo.jpg")
    (first, second) = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    small = {"trainer.max_steps": 1, "trainer.limit_val_batches": 1, "data.size": 64, "data.batch_size": 2}
    small |= {"model.calibration_batches": 1, "data.train_crops": 8, "data.val_crops": 2}
    small |= {"model.tokenizer.encoder.width": 32, "model.tokenizer.decoder.width": 32}
    names = {}
    exec(first, names)
    assert names["reconstructions"].shape[1] == 3
    exec(second.replace('{"trainer.max_steps": 100}', repr(small)), names)
    assert names["measured"].record.figure("psnr") > 0 and len(names["drawn"].codes) == 4
