"""Of an old run and the one that shall replace it, one is whole at any moment."""

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from vltok.cli.main import main
from vltok.errors import UserError
from vltok.files import alone_in
from vltok.verbs import fitting
from vltok.verbs.run_folder import RunFolder

from .exports import contents
from .runs import one_line

FAIL = """
from lightning.pytorch import Callback

class Fail(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("a callback of my own fails")
"""


def _overwrite(recipe: Path, run: Path, *options: str) -> int:
    return main(["fit", "--config", str(recipe), "--out", str(run), "--overwrite", *options])


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> str:
    """The option that lets a training of 20 steps, 8 an epoch, fail at some step."""
    Path("fails_at_a_step.py").write_text(FAIL)
    monkeypatch.syspath_prepend(Path.cwd())
    return "--trainer.max_steps=20 --trainer.callbacks=[{{class_path: fails_at_a_step.Fail, init_args: {{step: {}}}}}]"


def test_a_failure_before_the_first_checkpoint_brings_the_old_run_back(
    run: Path, recipe: Path, fail_at: str, capsys: pytest.CaptureFixture
) -> None:
    before = contents(run)
    assert _overwrite(recipe, run, *fail_at.format(5).split(" ", 1)) == 1
    line = one_line(capsys)
    assert (
        "fails_at_a_step.py, line 10, raised RuntimeError: a callback" in line
        and "the run that was there is back" in line
    )
    assert contents(run) == before


def test_a_failure_after_the_first_checkpoint_keeps_the_new_run(
    run: Path, recipe: Path, fail_at: str, capsys: pytest.CaptureFixture
) -> None:
    assert _overwrite(recipe, run, *fail_at.format(10).split(" ", 1)) == 1
    line = one_line(capsys)
    assert "a callback of my own fails" in line and f"go on with 'vltok fit --resume --out {run}'" in line
    assert {path.name for path in run.iterdir()} == {"config.yaml", "logs", "metrics.csv", "checkpoints"}
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8


def test_without_checkpoints_the_old_run_stays_until_the_new_one_is_measured(
    run: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = contents(run)

    def fail(*_: object) -> None:
        raise UserError("the figures fail")

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "report_tokenizer", fail)
        assert _overwrite(recipe, run, "--trainer.enable_checkpointing=false") == 1
        assert one_line(capsys).endswith("the figures fail; the run that was there is back")
        assert contents(run) == before
    assert _overwrite(recipe, run, "--trainer.enable_checkpointing=false") == 0
    assert not (run / "checkpoints").exists() and (run / "bundle").is_dir() and not (run / ".replaced").exists()


def _write(folder: RunFolder, text: str, checkpoint: bool = True) -> None:
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    folder.config.write_text(text)
    (folder.path / "logs").mkdir()
    if checkpoint:
        folder.last_checkpoint.write_text(text)


def _replace_and_die(folder: RunFolder, calls: int, save: bool, settle: bool) -> None:
    """Put an old run away, start a new one and give it up or let it save; be killed before so many calls."""

    def watch(event: str, arguments: tuple) -> None:
        nonlocal calls
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            calls -= 1
            if calls < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    folder.set_aside()
    _write(folder, "new", checkpoint=False)
    if save:
        folder.last_checkpoint.with_name("beside").write_text("new")
        folder.last_checkpoint.with_name("beside").rename(folder.last_checkpoint)
        folder.forget_replaced()
    if settle:
        folder.settle()


@pytest.mark.parametrize(("save", "settle"), [(True, False), (False, True), (True, True)])
def test_a_process_that_is_killed_leaves_one_of_the_two(tmp_path: Path, save: bool, settle: bool) -> None:
    folder = RunFolder(tmp_path / "run")
    seen = set()
    for calls in range(30):
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.path.mkdir()
        (folder.path / "notes.txt").write_text("mine")
        _write(folder, "old")
        arguments = (folder, calls, save, settle)
        process = multiprocessing.get_context("fork").Process(target=_replace_and_die, args=arguments)
        process.start()
        process.join()
        assert folder.begun
        came_back = folder.settle()
        found = folder.config.read_text()
        assert folder.last_checkpoint.read_text() == found and (found == "old" or not came_back)
        names = {path.name for path in folder.path.iterdir()}
        assert names == {"notes.txt", "config.yaml", "logs", "checkpoints"}
        seen.add(found)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert calls > 5 and seen == ({"old", "new"} if save else {"old"})


def test_what_was_cut_off_is_put_in_order_by_the_next_command(run: Path, recipe: Path) -> None:
    before = contents(run)
    folder = RunFolder(run)
    folder.set_aside()
    _write(folder, "new", checkpoint=False)
    with pytest.warns(UserWarning, match="the run that was there is back"):
        assert main(["fit", "--resume", "--out", str(run), "--model.learning_rate=1"]) == 1
    assert contents(run) == before


def test_a_run_that_another_process_trains_is_left_alone(
    run: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()

    def train() -> None:
        with alone_in(run):
            ready.set()
            done.wait()

    monkeypatch.setattr(fitting, "_SECONDS_TO_WAIT", 0.0)
    process = context.Process(target=train, daemon=True)
    process.start()
    ready.wait()
    before = contents(run)
    for option in ("--resume", "--overwrite"):
        assert main(["fit", "--config", str(recipe), "--out", str(run), option]) == 1
        assert f"another process is writing to '{run}'" in one_line(capsys)
    assert contents(run) == before
    process.kill()
    process.join()
