"""Shards that vanish or are cut, keys that stand twice, workers that are killed, loaders that raise."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest

from tests.faults.commands import DATA, DETOKENIZE, EVALUATE, FIT, FIT_PRIOR, TOKENIZE, to, verb
from tests.faults.conftest import Start, Vltok, way_on, whole
from tests.faults.injected import remove_at, small_shared_memory
from tests.faults.processes import Running

pytestmark = pytest.mark.faults

_SHARDS = [
    "--data=webdataset",
    "--data.shards=shards/*.tar",
    "--data.size=16",
    "--data.workers=0",
    "--data.val_share=0.3",
]
_MANY = "--trainer.max_steps=100000"
_WORKERS = "--data.workers=2"


def of_shards(command: tuple[str, ...]) -> list[str]:
    """A command that reads tar shards where it read a folder."""
    if command == FIT:
        return [*FIT, *_SHARDS, "--data.batch_size=4"]
    # whole shards are held out, of which the harmed one may be none
    split = ["--split=all"] if command == EVALUATE else []
    return [word for word in command if word not in DATA] + _SHARDS + split


@pytest.mark.parametrize("harm", ["vanished", "cut"])
@pytest.mark.parametrize("command", [FIT, TOKENIZE, EVALUATE], ids=verb)
def test_harmed_shard(command: tuple[str, ...], harm: str, here: Path, vltok: Vltok, row) -> None:
    row(f"{harm} shard of pictures", verb(command))
    shard = sorted((here / "shards").glob("*.tar"))[1]
    content = shard.read_bytes()
    if harm == "cut":
        shard.write_bytes(content[: len(content) // 2 + 100])
        faults = []
    else:  # after it was listed
        faults = [functools.partial(remove_at, r"/out(/|$)|/\.unfinished", str(shard))]
    line = vltok(*of_shards(command), "--out=out", faults=faults).line(shard.name)
    row(f"{harm} shard of pictures", verb(command), line)
    shard.write_bytes(content)
    extra = way_on(here / "out")
    vltok(*of_shards(command), "--out=out", *extra).fine()


@pytest.mark.parametrize("harm", ["vanished", "cut", "vanished later"])
@pytest.mark.parametrize("command", [FIT_PRIOR, DETOKENIZE], ids=verb)
def test_harmed_code_shard(command: tuple[str, ...], harm: str, here: Path, vltok: Vltok, row) -> None:
    row(f"{harm} code shard", verb(command))
    (shard,) = (here / "codes" / "train").glob("*.tar")
    content = shard.read_bytes()
    faults = []
    if harm == "cut":
        shard.write_bytes(content[: len(content) // 2 + 100])
    elif harm == "vanished":
        shard.unlink()
    else:
        faults = [functools.partial(remove_at, r"/checkpoints|out/cat", str(shard))]
    ended = vltok(*to("out", command), faults=faults)
    if harm == "vanished later" and command == DETOKENIZE and ended.code == 0:
        line = "goes on"  # the open file is still there
    else:
        line = ended.line(shard.name)
    row(f"{harm} code shard", verb(command), line)
    shard.write_bytes(content)
    extra = way_on(here / "out")
    vltok(*to("out", command), *extra).fine()


@pytest.mark.parametrize("command", [FIT, TOKENIZE, EVALUATE], ids=verb)
def test_duplicate_keys(command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row("duplicate keys in a shard", verb(command))
    shard = sorted((here / "shards").glob("*.tar"))[1]
    with tarfile.open(shard) as tar:
        files = [(member.name, tar.extractfile(member).read()) for member in tar]
    with tarfile.open(shard, "w") as tar:
        for name, content in [*files[:2], *files]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    row("duplicate keys in a shard", verb(command), vltok(*of_shards(command), "--out=out").line(shard.name))


def _kill_a_worker(process: Running) -> None:
    """Kill what it has started until one is missed: a worker may have sent its last batch."""
    process.wait_until(process.children)
    while process.alive and (children := process.children()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(children[-1], signal.SIGKILL)
        time.sleep(0.05)


@pytest.mark.parametrize("command", [FIT, FIT_PRIOR, TOKENIZE, EVALUATE], ids=verb)
def test_worker_killed(command: tuple[str, ...], here: Path, start: Start, vltok: Vltok, row) -> None:
    row("worker killed", verb(command))
    arguments = [*to("out", command), _WORKERS]
    process = start(*arguments, *([_MANY] if command[0] == "fit" else []))
    if command[0] == "fit":
        process.wait_until((here / "out" / "checkpoints" / "last.ckpt").exists)
    _kill_a_worker(process)
    line = process.end().line("worker")
    row("worker killed", verb(command), line)
    vltok(
        *arguments, *(["--resume", "--trainer.max_steps=-1", "--trainer.max_epochs=1"] if command[0] == "fit" else [])
    ).fine()


def test_worker_of_pack_killed(here: Path, start: Start, vltok: Vltok, row) -> None:
    row("worker killed", "pack")
    for number in range(40):  # enough pictures to be in time
        for picture in sorted((here / "pictures" / "cat").glob("0*.png")):
            picture.with_name(f"{number}-{picture.name}").write_bytes(picture.read_bytes())
    process = start("pack", "pictures", "out", "--workers=2")
    _kill_a_worker(process)
    row("worker killed", "pack", process.end().line("worker"))
    assert not list((here / "out").glob("*"))
    vltok("pack", "pictures", "out", "--workers=2").fine()


@pytest.mark.parametrize("command", [FIT, TOKENIZE, EVALUATE], ids=verb)
def test_small_shared_memory(command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row("/dev/shm of 4 MB", verb(command))
    arguments = [*to("out", command), "--data.size=256", "--data.batch_size=16", "--data.workers=1"]
    line = vltok(*arguments, faults=[small_shared_memory]).line("shm", "workers")
    row("/dev/shm of 4 MB", verb(command), line)
    vltok(*arguments, "--data.workers=0", *(["--trainer.max_steps=2"] if command[0] == "fit" else [])).fine()


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_that_raises(workers: int, here: Path, vltok: Vltok, row) -> None:
    row(f"a loader that raises, {workers} workers", verb(FIT))
    arguments = [*to("out", FIT), "--data=tests.faults.callbacks.RaisingFolder", "--data.root=pictures"]
    line = vltok(*arguments, "--data.size=16", f"--data.workers={workers}").line("a loader of my own fails")
    row(f"a loader that raises, {workers} workers", verb(FIT), line)


def test_callback_that_raises(here: Path, vltok: Vltok, row) -> None:
    row("a callback that raises", verb(FIT))
    callback = "--trainer.callbacks+={class_path: tests.faults.callbacks.Raises, init_args: {step: 12}}"
    line = vltok(*to("out", FIT), callback).line("a callback of my own fails")
    row("a callback that raises", verb(FIT), line)
    vltok(*to("out", FIT), "--resume").fine()
    assert whole(here / "out")
