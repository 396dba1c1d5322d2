"""Every command in the README runs, in the order of the README's sections, on a few real photographs."""

import argparse
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.run import get_args_parser

from vltok.cli.main import VERBS, main
from vltok.evaluation.ablations import AblationTable
from vltok.io.recipes import parse
from vltok.verbs.tokenize import Tokenized
from vltok.verbs.training_recipe import TrainingRecipe, fit_parser

from .io.importers.foreign import vqgan_state
from .readers import ROOT, add_prior, blocks_of, commands_of, make_project, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [commands_of(block) for block in blocks_of(README, "sh")]
COMMANDS = [command for block in BLOCKS for command in block]
VLTOK = [block for block in BLOCKS if block[0].startswith("vltok ")]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


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


def test_commands_of_several_machines_start_what_they_say(monkeypatch):
    asked = []
    monkeypatch.setattr("vltok.cli.fit.run", lambda given: asked.append(TrainingRecipe.of_arguments(given).config))
    monkeypatch.setattr(
        "vltok.verbs.tokenize.tokenize", lambda **given: asked.append(given) or Tokenized(ROOT, None, True)
    )
    monkeypatch.chdir(ROOT)
    srun = argparse.ArgumentParser()
    for option in ("--nodes", "--ntasks-per-node", "--gpus-per-node"):
        srun.add_argument(option, type=int)
    lines = [line for block in blocks_of(README, "bash") for line in block.splitlines()]
    for line in lines:
        if not line.startswith("#"):
            words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "64"))
            place = words.index("vltok")
            assert main(words[place + 1 :]) == 0, line
            if words[0] == "torchrun":
                started = get_args_parser().parse_args(words[1 : place + 1])
                nodes, each = int(started.nnodes), int(started.nproc_per_node)
            elif words[0] == "srun":
                started = srun.parse_args(words[1:place])
                nodes, each = started.nodes, started.ntasks_per_node
                assert started.gpus_per_node == each
            if place > 0:
                assert (asked[-1].trainer.num_nodes, int(asked[-1].trainer.devices)) == (nodes, each)
    assert asked[-1]["part"] == "64/64" and "#SBATCH --array=1-64" in lines
    assert [int(given.trainer.devices) for given in asked[:-1]] == [8, 8, 8]


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
    add_prior(project)
    beside, first, second = blocks_of(README, "python")
    small = {"trainer.max_steps": 1, "trainer.limit_val_batches": 1, "data.size": 64, "data.batch_size": 2}
    small |= {"model.calibration_batches": 1, "data.train_crops": 8, "data.val_crops": 2}
    small |= {"model.tokenizer.encoder.width": 32, "model.tokenizer.decoder.width": 32}
    names = {}
    exec(beside, names)
    assert {np.load(path).shape for path in Path("pictures").glob("*.npy")} == {(48,)}
    exec(first, names)
    assert names["reconstructions"].shape[1] == 3
    exec(second.replace('{"trainer.max_steps": 100}', repr(small)), names)
    assert names["measured"].record.figure("psnr") > 0 and len(names["drawn"].codes) == 4
