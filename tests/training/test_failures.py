"""Two real processes of `vltok fit`, of which one fails: both end, and one line says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ..cli.exports import run_in_two
from ..cli.runs import dq_vae

RECIPE = (
    "\n"
    + dq_vae("random, init_args: {ratios: {4: 0.5, 8: 0.5}}")
    + """\
data: {class_path: photos, init_args: {size: 16, batch_size: 4, train_crops: 32, val_crops: 2}}
trainer: {accelerator: cpu, devices: 2, strategy: ddp, max_steps: 8, enable_progress_bar: false}
"""
)

FAULT = """
import os
import torch
from lightning.pytorch import Callback

class Fault(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        kind, rank = os.environ["FAULT"].split()
        if trainer.global_step != 6 or trainer.global_rank != int(rank):
            return
        if kind == "loss":
            batch.images.fill_(torch.nan)
        elif kind == "gradient":
            module.tokenizer.project_in.weight.register_hook(lambda gradient: gradient * torch.nan)
        elif kind == "error":
            raise OSError("the disk is gone")
        else:
            os.kill(os.getpid(), 9)
"""


FIT = ["fit", "--config", "tiny.yaml", "--out", "run", "--trainer.callbacks", "[{class_path: fault.Fault}]"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the recipe and the fault."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(RECIPE)
    Path("fault.py").write_text(FAULT)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("error 1", "the disk is gone"),
        ("loss 1", "NaN or infinite at step 6 (not finite: pixel, "),
        ("gradient 1", "NaN or infinite at step 6 (not finite: gradient)"),
        ("error 0", "the disk is gone"),
        ("death 1", "process 1 of this training was killed by SIGKILL"),
    ],
)
def test_one_of_two_fails(fault: str, message: str) -> None:
    environment = {**os.environ, "FAULT": fault, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "vltok", *FIT], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    check(done.stderr, message)


@pytest.mark.faults
def test_one_of_two_that_a_launcher_has_started_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    codes, said = run_in_two(FIT, FAULT="loss 1")
    assert codes == [1, 1], said
    check(said, "NaN or infinite at step 6 (not finite: pixel, quantization, loss)")


def check(said: str, message: str) -> None:
    """One line says it, and the checkpoint before it is left."""
    lines = [line for line in said.splitlines() if line.startswith("vltok: ")]
    assert len(lines) == 1 and message in lines[0], said
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 4 and all(value.isfinite().all() for value in state["state_dict"].values())
    assert not Path("run/bundle").exists()
    if "NaN" in message:
        assert "go on with 'vltok fit --resume --out run'" in lines[0]
