"""A training that is killed again and again, and resumed, is the undisturbed one: bit for bit, and batch for batch."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cli.runs import dq_vae
from tests.faults.conftest import Start
from tests.faults.processes import Ended, Running
from vltok.training.last_checkpoint import LastCheckpoint

_TOKENIZER = (
    "\nseed_everything: 3\n"
    + dq_vae("gain, init_args: {channels: 8, ratios: {4: 0.5, 8: 0.5}}", codes=24, encoder=", dropout: 0.1")
    + """\
    perceptual: {class_path: none}
    discriminator: {class_path: patchgan, init_args: {width: 8, layers: 1}}
    calibration_batches: 2
    schedule: cosine
    warmup_steps: 3
trainer:
  accelerator: cpu
  max_epochs: 2
  accumulate_grad_batches: 2
  val_check_interval: 4
  callbacks:
  - {class_path: vltok.training.ExponentialMovingAverage, init_args: {decay: 0.5}}
"""
)
_PRIOR = """
seed_everything: 5
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: dq-transformer
      init_args: {codebook_size: 300, factors: [4, 8], regions: [2, 2], width: 16, heads: 2, dropout: 0.1,
                  position_layers: 1, content_layers: 1}
    learning_rate: 1.0e-2
trainer: {accelerator: cpu, max_steps: 17, callbacks: []}
"""
_DATA = {
    "photographs": "data: {class_path: photos, init_args: {size: 16, batch_size: 2, train_crops: 24, val_crops: 4, "
    "workers: 2}}\n",
    "a folder": "data: {class_path: folder, init_args: {root: pictures, size: 16, batch_size: 2, val_share: 0.3, "
    "workers: 2}}\n",
    "shards": "data: {class_path: webdataset, init_args: {shards: 'shards/*.tar', size: 16, batch_size: 2, "
    "val_share: 0.3, workers: 2, shuffle_buffer: 6}}\n",
    "codes": "data: {class_path: codes, init_args: {root: codes/train, batch_size: 2, workers: 2}}\n",
}


def save_often() -> None:
    """Save a checkpoint after each step, and not every 15 minutes."""
    LastCheckpoint.__init__ = functools.partialmethod(LastCheckpoint.__init__, interval=timedelta(0))


def processes_of(start: Start, arguments: Sequence[str], count: int) -> list[Running]:
    """`vltok` in one process, or in several as torchrun starts them."""
    if count == 1:
        return [start(*arguments, faults=[save_often])]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "resume"}
    both |= {"GLOO_SOCKET_IFNAME": "lo", "LOCAL_WORLD_SIZE": str(count)}
    several = [*arguments, f"--trainer.devices={count}", "--trainer.strategy=ddp_find_unused_parameters_true"]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return [start(*several, faults=[save_often], **both, **rank) for rank in ranks]


def stop(processes: list[Running], number: int) -> list[Ended]:
    """Send a signal as it comes in life: Ctrl-C and a scheduler's to all at once, with the processes that load."""
    for process in processes:
        if process.alive:
            os.killpg(process.pid, number)
    return [process.end() for process in processes]


def batches_of(log: Path, rank: int) -> list[list]:
    """What was written down of each batch; a line that a kill has cut is left out."""
    path = log.with_name(f"{log.name}.{rank}")
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("]]")]


def check_batches(log: Path, expected: Path, processes: int) -> None:
    """Each batch of each epoch is the undisturbed run's, whichever of the trainings took it."""
    for rank in range(processes):
        seen = {tuple(line[:3]): line[3] for line in batches_of(expected, rank)}
        lines = batches_of(log, rank)
        assert all(seen[tuple(line[:3])] == line[3] for line in lines)
        assert {tuple(line[:3]) for line in lines} == seen.keys()


def check_equal(one: Any, other: Any, where: str = "") -> None:
    """Two checkpoints are the same, but for the time that they took."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            # how many batches of a validation that was cut were gone through
            if key not in ("seconds", "epoch_loop.val_loop.batch_progress"):
                check_equal(value, other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            check_equal(*pair, f"{where}/{index}")
    else:
        assert one == other, where


def check_resumed(start: Start, here: Path, recipe: str, data: str, signals: Sequence[int], processes: int) -> None:
    """Train undisturbed, and again with a signal at each of some moments; the ends are equal."""
    (here / "resume.yaml").write_text(recipe + _DATA[data])
    log = '{{"class_path": "tests.faults.callbacks.KeyLog", "init_args": {{"path": "{}.log"}}}}'

    def arguments(name: str) -> list[str]:
        added = f"--trainer.callbacks+={log.format(name)}"
        return ["fit", "--config=resume.yaml", f"--out={name}", added, "--trainer.num_sanity_val_steps=1"]

    for ended in [process.end() for process in processes_of(start, arguments("whole"), processes)]:
        ended.fine()
    last = Path("checkpoints") / "last.ckpt"
    total = len(batches_of(here / "whole.log", 0))
    moments = random.Random(f"{data}/{signals}/{processes}")
    for number in signals:
        begun = len(batches_of(here / "killed.log", 0))
        extra = []
        if (here / "killed" / "config.yaml").exists():
            whole = [path for path in (here / "killed" / "checkpoints").glob("last*.ckpt")]
            extra = ["--resume"] if whole else ["--overwrite"]
        running = processes_of(start, [*arguments("killed"), *extra], processes)
        target = begun + moments.randint(1, max(2 * total // len(signals), 2))
        deadline = time.monotonic() + 60
        while running[0].alive and len(batches_of(here / "killed.log", 0)) < target and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.03))
        for ended in stop(running, number):
            if number != signal.SIGKILL and ended.code:
                assert ended.code in (1, 130) and "Traceback" not in ended.err, ended.err
    extra = ["--resume"] if list((here / "killed" / "checkpoints").glob("last*.ckpt")) else ["--overwrite"]
    for process in processes_of(start, [*arguments("killed"), *extra], processes):
        process.end().fine()
    check_batches(here / "killed.log", here / "whole.log", processes)
    stored = [torch.load(here / name / last, weights_only=True) for name in ("whole", "killed")]
    check_equal(*stored)
    (one, other) = [(here / name / "bundle" / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert one == other


@pytest.fixture
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the project where files are read; an empty folder is enough for photographs."""
    if "photographs" in request.node.name:
        return tmp_path
    return Path(shutil.copytree(request.getfixturevalue("project"), tmp_path / "project"))


pytestmark = pytest.mark.faults

_KILLS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]


def test_killed_twice_photographs(here: Path, start: Start, row) -> None:
    row("killed twice and resumed, photographs", "fit (tokenizer)")
    check_resumed(start, here, _TOKENIZER, "photographs", [signal.SIGKILL, signal.SIGTERM], processes=1)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("data", list(_DATA))
def test_killed_again_and_again(data: str, processes: int, here: Path, start: Start, row) -> None:
    verb = "fit (prior)" if data == "codes" else "fit (tokenizer)"
    row(f"killed and resumed, {data}, {processes} process{'es' * (processes > 1)}", verb)
    recipe = _PRIOR if data == "codes" else _TOKENIZER
    check_resumed(start, here, recipe, data, _KILLS, processes)
