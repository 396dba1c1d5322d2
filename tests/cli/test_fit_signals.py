"""Signals stop a training between two steps, with a checkpoint of the last one."""

import json
import signal
from pathlib import Path

import pytest

from vltok.cli.main import main
from vltok.training.checkpoints import read_checkpoint

from .exports import run_in_two
from .runs import one_line

SIGNALS = """
import os, signal, time
from lightning.pytorch import Callback

class Signal(Callback):
    def __init__(self, number: int, step: int, rank: int = 0, times: int = 1) -> None:
        self.number, self.step, self.rank, self.times = number, step, rank, times

    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

class SignalInValidation(Signal):
    def on_before_optimizer_step(self, *_):
        pass

    def on_validation_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)
"""


@pytest.mark.parametrize(
    ("callback", "steps"),
    [
        (f"{{class_path: signals.Signal, init_args: {{number: {int(signal.SIGTERM)}, step: 3}}}}", 4),
        (f"{{class_path: signals.Signal, init_args: {{number: {int(signal.SIGINT)}, step: 3, times: 3}}}}", 4),
        # the last step of an epoch of 8: validation and the end of the epoch come first
        (f"{{class_path: signals.Signal, init_args: {{number: {int(signal.SIGTERM)}, step: 7}}}}", 8),
        (f"{{class_path: signals.SignalInValidation, init_args: {{number: {int(signal.SIGINT)}, step: 8}}}}", 8),
    ],
)
def test_a_signal_saves_at_the_end_of_the_step_and_says_how_to_go_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, callback: str, steps: int
) -> None:
    Path("signals.py").write_text(SIGNALS)
    monkeypatch.syspath_prepend(Path.cwd())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    length = ["--trainer.max_steps", "20", "--trainer.callbacks", f"[{callback}]"]
    assert main(["fit", "--config", str(recipe), "--out", "run", *length]) == 130
    assert "no bundle was written; go on with 'vltok fit --resume --out run'" in one_line(capsys)
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert {path.name for path in Path("run").iterdir()} == {"config.yaml", "logs", "metrics.csv", "checkpoints"}
    assert read_checkpoint(Path("run/checkpoints/last.ckpt"))["global_step"] == steps
    length = ["--trainer.max_steps", str(steps + 1), "--trainer.callbacks", "null"]
    assert main(["fit", "--resume", "--out", "run", *length]) == 0
    assert json.loads(Path("run/metrics.json").read_text())["protocol"]["steps"] == steps + 1


def test_a_signal_to_one_of_two_processes_saves_and_stops_both(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("signals.py").write_text(SIGNALS)
    monkeypatch.syspath_prepend(Path.cwd())
    callback = f"{{class_path: signals.Signal, init_args: {{number: {int(signal.SIGTERM)}, step: 3, rank: 1}}}}"
    options = ["--trainer.devices=2", "--trainer.strategy=ddp", f"--trainer.callbacks=[{callback}]"]
    command = ["fit", "--config", str(recipe), "--out", "two", *options, "--trainer.max_steps=20"]
    codes, said = run_in_two(command)
    assert codes == [130, 130], said
    (line,) = [line for line in said.splitlines() if line.startswith("vltok: ")]
    assert line == "vltok: interrupted: no bundle was written; go on with 'vltok fit --resume --out two'"
    assert "Traceback" not in said
    assert read_checkpoint(Path("two/checkpoints/last.ckpt"))["global_step"] == 4
