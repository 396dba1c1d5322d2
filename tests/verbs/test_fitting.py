"""Training from Python, as a notebook does, of an objective of one's own."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vltok
from vltok.errors import UserError
from vltok.evaluation.training_logs import TrainingLog
from vltok.io.curve_files import read_rows
from vltok.tokenizers.dqvae import DQVAE
from vltok.training.checkpoints import read_checkpoint
from vltok.verbs.training_recipe import TrainingRecipe

from ..cli.runs import RECIPE

OBJECTIVE = """
import os, signal
import torch
from lightning.pytorch import Callback
from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.training import Objective

class SquaredError(Objective):
    def __init__(self, coder: Tokenizer, rate: float = 1e-3) -> None:
        super().__init__()
        self.coder, self.rate, self.last = coder, rate, float("nan")

    @property
    def trained(self) -> Tokenizer:
        return self.coder

    @property
    def batches_calibrated_on(self) -> int:
        return 0

    def check_data(self, data) -> None:
        if data.size > 16:
            raise UserError(f"data.size is {data.size}, which is too much")

    def figures(self) -> dict[str, float]:
        return {"last_error": self.last}

    def configure_optimizers(self):
        return torch.optim.Adam(self.coder.parameters(), self.rate)

    def training_step(self, batch, index):
        error = (self.coder(batch.images).reconstruction - batch.images).square().mean()
        self.last = float(error)
        self.log("error", error)
        return error

class Interrupt(Callback):
    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A recipe whose objective is a plug-in's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "squared.py").write_text(OBJECTIVE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "squared", raising=False)
    tree = yaml.safe_load(RECIPE)
    tokenizer = tree["model"]["init_args"]["tokenizer"]
    tokenizer["class_path"] = "vltok.tokenizers.dqvae.DQVAE"
    tokenizer["init_args"]["gate"] = {"class_path": "random", "init_args": {"ratios": {4: 0.5, 8: 0.5}}}
    tree["model"] = {"class_path": "squared.SquaredError", "init_args": {"coder": tokenizer}}
    del tree["trainer"]["callbacks"]
    return tree


def test_an_objective_of_one_s_own_gets_bundle_figures_and_checks(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"data\.size is 24, which is too much"):
        vltok.fit(recipe, out="run", overrides={"data.size": 24})
    assert not Path("run").exists()

    run = vltok.fit(recipe, out="run")
    assert (run.folder, run.steps, run.ended) == (Path("run"), 2, "max_steps")
    assert 5 < run.record.figure("psnr") < 40 and run.record.figure("last_error") > 0
    assert run.record.protocol["data"]["images"] == 9 and run.record.protocol["training_data"]["images"] == 32
    assert vltok.load_tokenizer(run.bundle).spec.codebook_size == 16
    assert capsys.readouterr().out == ""  # nobody asked to be told

    with pytest.raises(UserError, match="holds a finished run"):
        vltok.fit(recipe, out="run")
    lines: list[str] = []
    longer = vltok.fit(out="run", resume=True, overrides={"trainer": {"max_steps": 3}}, progress=lines.append)
    assert longer.steps == 3 and any(line.startswith("written: run/bundle") for line in lines)
    # a run of fewer steps than log_every_n_steps has curves all the same, which go on
    log = EventAccumulator("run/logs").Reload()
    assert [event.step for event in log.Scalars("error")] == [0, 1, 2]
    assert [row["step"] for row in read_rows(Path("run/metrics.csv")) if "error" in row] == [0, 1, 2]


def test_a_logger_by_its_short_name_writes_into_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    validated = {"trainer.check_val_every_n_epoch": None, "trainer.val_check_interval": 2}
    run = vltok.fit(yaml.safe_load(RECIPE), out="run", overrides={"trainer.logger": "CSVLogger", **validated})
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    written = run.folder / "logs" / "lightning_logs" / "version_0"
    assert (written / "metrics.csv").is_file()
    assert (written / "pictures" / "validation-0000002.png").is_file()
    first = TrainingLog.read(run.folder)
    assert first.curves["length"][0] == (0, 1) and first.curves["val_psnr"][0] == (1,)
    # in config.yaml the place goes along with the folder, and needs no logger to go on
    run.folder.rename("moved")
    vltok.fit(out="moved", resume=True, overrides={"trainer.max_steps": 4, "trainer.logger": False})
    second = TrainingLog.read(Path("moved"))
    assert second.curves["length"][0] == (0, 1, 2, 3) and second.curves["val_psnr"][0] == (1, 3)
    assert second.curves["length"][1][:2] == first.curves["length"][1]
    assert vltok.compare(["moved"]).figures.keys() >= {"training_val_psnr", "training_val_length", "training_ratios"}


def test_several_loggers_and_their_own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    other = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "board"}}
    recipe = TrainingRecipe.of(yaml.safe_load(RECIPE), {"trainer.logger": ["CSVLogger", other], "out": "run"})
    table, board = recipe.build().trainer["logger"]
    assert (table.save_dir, board.save_dir) == ("run/logs", "board")
    assert "save_dir: '{out}/logs'" in recipe.text(recipe.run_folder())


def test_ctrl_c_saves_and_raises(recipe: dict[str, Any]) -> None:
    overrides = {"trainer.max_steps": 8, "trainer.callbacks": {"class_path": "squared.Interrupt"}}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="go on with 'vltok fit --resume --out run'"):
        vltok.fit(recipe, out="run", overrides=overrides)
    assert signal.getsignal(signal.SIGINT) is before
    assert read_checkpoint(Path("run/checkpoints/last.ckpt"))["global_step"] == 4


def test_a_run_whose_time_is_spent_says_so(recipe: dict[str, Any]) -> None:
    vltok.fit(recipe, out="run")
    lines: list[str] = []
    overrides = {"trainer.max_steps": 900000, "trainer.max_time": "00:00:00:01"}
    run = vltok.fit(out="run", resume=True, overrides=overrides, progress=lines.append)
    assert run.ended == "max_time" and run.steps < 900000
    assert any(line.startswith(f"trainer.max_time is spent, at step {run.steps}") for line in lines)
    seconds = run.record.protocol["training_seconds"]
    again = vltok.fit(out="run", resume=True, overrides=overrides, progress=lines.append)
    assert "of trainer.max_time, 0:00:00 is left" in lines
    # of the whole run, though nothing was trained this time
    assert (again.ended, again.steps) == ("max_time", run.steps)
    assert again.record.protocol["steps"] == run.steps
    assert again.record.protocol["training_seconds"] == pytest.approx(seconds, rel=0.5)
    assert sum(line.startswith("trainer.max_time is spent") for line in lines) == 2


def test_what_is_asked_for(recipe: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="give a recipe"):
        vltok.fit(out="run")
    with pytest.raises(UserError, match="name the run folder"):
        vltok.fit(recipe)
    with pytest.raises(UserError, match="which says what is trained"):
        vltok.fit(out="run", resume=True)
    assert not Path("run").exists()


@pytest.mark.parametrize(("asked", "missed"), [(9.8, False), (11.0, True), (9.0, True)])
def test_a_code_length_that_is_missed_gives_a_warning(
    recipe: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    asked: float,
    missed: bool,
) -> None:
    # places at random keep to their ratios, of which images of four regions have 10 codes
    monkeypatch.setattr(DQVAE, "expected_length", lambda self, height, width: asked)
    run = vltok.fit(recipe, out="run", overrides={"trainer.max_steps": 1})
    assert run.record.figure("length_of_training") == 10.0
    said = [str(warning.message) for warning in recwarn if "codes on average" in str(warning.message)]
    assert len(said) == missed
    assert not missed or said[0].startswith(f"images have 10.0 codes on average, where the recipe asks for {asked}:")
