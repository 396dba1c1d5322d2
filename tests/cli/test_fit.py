"""`vltok fit` from a recipe to a run folder, at a tiny size on real photographs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import skimage
import torch
import yaml
from PIL import Image

import vltok
from vltok.cli.fit import with_resumed_config
from vltok.cli.main import main
from vltok.errors import UserError
from vltok.evaluation.records import Record
from vltok.io.bundles import fingerprint

from .runs import one_line


def test_a_run_leaves_all_its_files(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "logs",
        "metrics.csv",
        "checkpoints",
        "bundle",
        "metrics.json",
        "reconstructions.png",
    }
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert list((folder / "logs").glob("events.*"))
    with Image.open(folder / "reconstructions.png") as picture:
        assert picture.width > 8 * 16


def test_the_figures(finished: tuple[Path, str]) -> None:
    record = Record.read(finished[0])
    values = {name: value.value for name, value in record.values.items()}
    assert 5 < values["psnr"] < 40 and 0 < values["codebook_usage"] <= 1
    assert values["length_std"] > 0 and -1 <= values["contrast_correlation"] <= 1
    assert values["expected_length"] == 4 * 2.5  # 4 regions, half of them with 4 codes
    assert 4 <= values["length_of_training"] <= 16
    assert values["ratio_8_of_training"] + values["ratio_4_of_training"] == pytest.approx(1)
    assert record.protocol["adaptation"] == {"images": 9, "regions": 36}
    assert values["gain_share"] <= 1 and "step_gain_correlation_4" in values
    protocol = record.protocol
    # of 32 crops, 16 went into the gate's calibration
    assert (protocol["data"]["images"], protocol["training_data"]["images"]) == (9, 16)
    assert (protocol["seed"], protocol["steps"], protocol["data"]["size"]) == (3, 2, 16)
    assert record.environment["vltok"] == vltok.__version__
    assert protocol["training_data"]["description"]["kind"] == "photos"
    assert record.subject["fingerprint"] == fingerprint(finished[0] / "bundle")


def test_what_is_printed(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    count = sum(parameter.numel() for parameter in vltok.load_tokenizer(folder / "bundle").parameters())
    assert f"tokenizer: {count / 1e3:.1f} k parameters (without discriminator and perceptual network)" in printed
    assert re.search(r"^\d+ images a step.*; the learning rate rises to [\d.e-]+$", printed, flags=re.MULTILINE)
    figures = Record.read(folder).values
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert f"PSNR ↑ {figures['psnr'].value:.2f} dB" in " ".join(lines)
    assert "code length asked for 10.0 codes" in lines
    assert f"share of the best gain ↑ {figures['gain_share'].value:.1%}" in lines


def test_the_bundle_holds_the_averaged_weights(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    (average,) = [value["average"] for key, value in state["callbacks"].items() if "MovingAverage" in key]
    tokenizer = vltok.load_tokenizer(folder / "bundle")
    assert tokenizer.spec.codebook_size == 24
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(value, average[name]), name
    assert any(not torch.equal(value, state["state_dict"][f"tokenizer.{name}"]) for name, value in average.items())


def test_the_resolved_recipe_runs_again(finished: tuple[Path, str], capsys: pytest.CaptureFixture) -> None:
    config = finished[0] / "config.yaml"
    tree = yaml.safe_load(config.read_text())
    assert tree["model"]["init_args"]["tokenizer"]["init_args"]["quantizer"]["class_path"] == "ema-vq"
    assert tree["data"]["class_path"] == "photos" and tree["seed_everything"] == 3
    assert tree["out"] == "runs/tiny"
    assert main(["fit", "--config", str(config), "--print_config"]) == 0
    again = yaml.safe_load(capsys.readouterr().out)
    assert again["model"] == tree["model"] and again["data"] == tree["data"] and again["trainer"] == tree["trainer"]


def test_a_run_is_not_overwritten_by_accident(run: Path, recipe: Path, capsys: pytest.CaptureFixture) -> None:
    before = fingerprint(run / "bundle")
    assert main(["fit", "--config", str(recipe), "--out", str(run)]) == 1
    line = one_line(capsys)
    assert "holds a finished run" in line and "--resume" in line and "--overwrite" in line
    assert fingerprint(run / "bundle") == before


def test_overwrite_replaces_a_run(run: Path, recipe: Path) -> None:
    assert main(["fit", "--config", str(recipe), "--out", str(run), "--overwrite"]) == 0
    assert vltok.load_tokenizer(run / "bundle").spec.codebook_size == 16
    assert len(list((run / "logs").glob("events.*"))) == 1


def test_a_run_is_replaced_only_by_one_that_got_through(run: Path, recipe: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    arguments = ["fit", "--config", str(recipe), "--out", str(run), "--overwrite"]
    assert main([*arguments, "--model.learning_rate", "1e30", "--trainer.max_steps", "20"]) == 1
    assert "NaN" in one_line(capsys)
    assert {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_true_half_precision_is_refused(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--config", str(recipe), "--trainer.precision", "bf16-true"]) == 1
    assert "give bf16-mixed or 32-true" in one_line(capsys)


def test_a_misspelt_component_is_named_with_the_nearest(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--config", str(recipe), "--model.tokenizer.quantiser.size", "64"]) == 1
    assert "did you mean 'quantizer'?" in one_line(capsys)


def test_a_threshold_that_is_infinite_survives_averaging(recipe: Path) -> None:
    ratios = "{4: 0.0, 8: 1.0}"
    assert main(["fit", "--config", str(recipe), "--model.tokenizer.gate.ratios", ratios]) == 0
    tokenizer = vltok.load_tokenizer("runs/tiny/bundle")
    assert tokenizer.gate.thresholds.isinf().all()


def test_resume_goes_on(run: Path) -> None:
    before = fingerprint(run / "bundle")
    assert main(["fit", "--resume", "--out", str(run), "--trainer.max_steps", "4"]) == 0
    assert json.loads((run / "metrics.json").read_text())["protocol"]["steps"] == 4
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 4
    assert fingerprint(run / "bundle") != before


def test_resume_of_a_training_that_is_over_measures_again(run: Path) -> None:
    """A run that was stopped between training and its figures gets them, of the averaged weights."""
    weights = vltok.load_tokenizer(run / "bundle").state_dict()
    figures = Record.read(run)
    (run / "metrics.json").unlink()
    assert main(["fit", "--resume", "--out", str(run)]) == 0
    for name, value in vltok.load_tokenizer(run / "bundle").state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert Record.read(run).values["psnr"] == figures.values["psnr"]


def test_a_loss_that_diverges_leaves_no_bundle(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Without a checkpoint nothing is left, so that the corrected recipe trains in the same folder."""
    arguments = ["--model.learning_rate", "1e30", "--trainer.max_steps", "8"]
    assert main(["fit", "--config", str(recipe), *arguments]) == 1
    assert "NaN or infinite" in one_line(capsys)
    assert not (tmp_path / "runs" / "tiny").exists()


def test_a_training_that_diverges_late_keeps_its_last_checkpoint(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The loss stays finite, the gradient does not: neither a checkpoint nor a bundle is written after it."""
    (tmp_path / "poisoned.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Poison(Callback):\n"
        "    def on_after_backward(self, trainer, module):\n"
        "        if trainer.global_step == 9:\n"
        "            next(module.parameters()).grad.fill_(float('nan'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["--trainer.max_steps", "32", "--trainer.callbacks", "[{class_path: poisoned.Poison}]", "--out", "run"]
    assert main(["fit", "--config", str(recipe), *arguments]) == 1
    line = one_line(capsys)
    assert "NaN or infinite at step 9 (not finite: gradient)" in line and "--resume --out run" in line
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "logs", "metrics.csv", "checkpoints"}
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 8 and all(value.isfinite().all() for value in state["state_dict"].values())
    assert main(["fit", "--config", str(recipe), "--out", "run"]) == 1
    assert "--overwrite" in one_line(capsys)
    assert main(["fit", "--resume", "--out", "run", "--trainer.callbacks", "null", "--trainer.max_steps", "10"]) == 0


def test_a_training_that_never_starts_leaves_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--model.warmup_steps", "3", "--model.warmup_epochs", "1"]
    assert main(["fit", "--config", str(recipe), *arguments]) == 1
    assert "warmup" in one_line(capsys)
    (tmp_path / "failing.py").write_text(
        "from lightning.pytorch import Callback\nfrom vltok.errors import UserError\n"
        "class Fail(Callback):\n"
        "    def on_train_start(self, *_):\n"
        "        raise UserError('not today')\n"
    )
    arguments = ["--trainer.callbacks", "{class_path: failing.Fail}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        assert main(["fit", "--config", str(recipe), *arguments]) == 1
    assert one_line(capsys) == "vltok: error: not today"
    assert not (tmp_path / "runs" / "tiny").exists()


def test_two_processes_train_and_the_first_measures_all_held_out_pictures(recipe: Path) -> None:
    options = ["--trainer.devices=2", "--trainer.strategy=ddp", "--model.tokenizer.gate=gain"]
    options += ["--model.tokenizer.gate.channels=8", "--model.tokenizer.gate.ratios={4: 0.5, 8: 0.5}"]
    command = [sys.executable, "-m", "vltok", "fit", "--config", str(recipe), "--out", "two", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert Record.read(Path("two")).protocol["data"]["images"] == 9
    assert len(list(vltok.load_tokenizer("two/bundle").state_dict())) > 10


def test_pictures_of_one_s_own(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for index, name in enumerate(["astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "moon", "brick"]):
        (folder / str(index % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(getattr(skimage.data, name)()).resize((40, 32)).save(folder / str(index % 2) / f"{name}.png")
    arguments = ["--data", "folder", "--data.root", str(folder), "--data.val_share", "0.5", "--data.batch_size", "2"]
    assert main(["fit", "--config", str(recipe), *arguments, "--out", "own"]) == 0
    protocol = Record.read(tmp_path / "own").protocol
    assert protocol["training_data"]["description"]["kind"] == "folder" and protocol["data"]["images"] >= 1


def _holding(path: Path, *files: str) -> None:
    for file in files:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text("")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (None, ["--data.size", "20"], "data.size is 20, but must be a multiple of 8"),
        (None, ["--model.tokenizer.gate.ratios", "{4: 0.5, 8: 0.6}"], "must be shares of at least 0 that sum to 1"),
        (None, ["--model.tokenizer.gate.ratios", "{4: 0.5, 16: 0.5}"], "gate.ratios name factors [16, 4]"),
        (None, ["--model.tokenizer.gate.ratioz", "{4: 0.5}"], "did you mean 'ratios'?"),
        (None, ["--data", "folder", "--data.root", "nowhere"], "nowhere"),
        (None, ["--data", "foldr"], "did you mean 'folder'?"),
        (None, ["--trainer.max_stepz", "3"], "did you mean '--trainer.max_steps'?"),
        (None, ["--resume"], "there is no runs/tiny/checkpoints/last.ckpt to go on with"),
        (None, ["--resume", "--overwrite"], "give one of them"),
        (None, ["--config", "nowhere.yaml"], "recipe 'nowhere.yaml' cannot be read"),
        (["thesis/chapter.tex"], ["--out", "thesis"], "holds something else than a run"),
        (["thesis/chapter.tex"], ["--out", "thesis", "--overwrite"], "holds something else than a run"),
        (["runs/tiny/config.yaml"], [], "holds a run that was started: it has no checkpoint for --resume"),
        (["runs/tiny/config.yaml", "runs/tiny/checkpoints/last.ckpt"], [], "go on with it by --resume, or replace it"),
    ],
)
def test_what_is_wrong_is_one_line_and_changes_nothing(
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    prepare: list[str] | None,
    arguments: list[str],
    message: str,
) -> None:
    _holding(tmp_path, *(prepare or []))
    before = sorted(tmp_path.rglob("*"))
    assert main(["fit", "--config", str(recipe), *arguments]) == 1
    assert message in one_line(capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_recipe_is_asked_for(capsys: pytest.CaptureFixture) -> None:
    assert main(["fit"]) == 1
    assert "vltok fit --config recipes/quickstart.yaml" in one_line(capsys)


def test_a_run_needs_a_folder(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--model", "vltok.training.TokenizerTraining", "--model.tokenizer", "dq-vae"]) == 1
    assert "needs" in one_line(capsys)


def test_the_recipe_of_a_resumed_run_is_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"--resume: there is no .*config.yaml, which says what is trained"):
        with_resumed_config(["--resume", "--out", str(run)])
    _holding(run, "config.yaml")
    own = ["--config", str(run / "config.yaml")]
    assert with_resumed_config(["--resume", "--out", str(run)]) == [*own, "--resume", "--out", str(run)]
    assert with_resumed_config([f"--out={run}", "--resume"]) == [*own, f"--out={run}", "--resume"]
    assert with_resumed_config(["--resume", "--out", str(run), "--config", "a"])[0] == "--resume"


def test_help_shows_own_options_first_and_lightning_s_on_request(capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--help"]) == 0
    own = capsys.readouterr().out
    assert "--overwrite" in own and "--trainer.precision" not in own and len(own.splitlines()) < 40
    assert main(["fit", "--help", "trainer"]) == 0
    assert "--trainer.precision" in capsys.readouterr().out
    assert main(["fit", "--help", "data"]) == 1
    assert "it knows no 'data'" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--data.help", "folder"], "val_share"),
        (["--data.help=folder"], "val_share"),
        (["--config", "tiny.yaml", "--model.tokenizer.gate.help", "gain"], "taught_share"),
    ],
)
def test_registered_names_have_help(capsys: pytest.CaptureFixture, arguments: list[str], shown: str) -> None:
    assert main(["fit", *arguments]) == 0
    assert shown in capsys.readouterr().out


def test_the_nearest_name_is_told_where_none_has_that_help(capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--data.help", "foldr"]) == 1
    assert "did you mean 'folder'?" in one_line(capsys)
