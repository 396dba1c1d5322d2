"""What happens to the processes that load: one clear line, or nothing at all."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.faults.injected import NOT_PERMITTED, small_shared_memory
from tests.sequences.code_exports import export_codes, random_codes
from vltok.errors import UserError
from vltok.loading.skipping import SkippedPictures
from vltok.loading.workers import unguarded
from vltok.pictures.batches import Loader, Places
from vltok.pictures.crops import Crops, Pictures
from vltok.pictures.exporting import CroppedPictures, export_batches
from vltok.pictures.images import ImageBatch
from vltok.pictures.photos import Photos
from vltok.pictures.transforms import CentreCrop
from vltok.sequences.batches import CodeLoader
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.stored import stored_sequences

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores


class Broken(Pictures):
    """Raises what nobody has thought of."""

    def __len__(self) -> int:
        return 8

    def key(self, index: int) -> str:
        return str(index)

    def label(self, index: int) -> None:
        return None

    def read(self, index: int) -> Image.Image:
        raise ZeroDivisionError("a loader of my own\nfails")


class Threaded(Broken):
    """Its processes have a thread that blocks no signal, as those of some libraries do."""

    def read(self, index: int) -> Image.Image:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return Image.new("RGB", (8, 8))


class Left(Broken):
    """What its processes hand over is not taken, and something else fails in a thread."""

    def read(self, index: int) -> Image.Image:
        for error in (ConnectionResetError("reset by peer"), EOFError("nobody there"), ValueError("a real fault")):
            sys.excepthook(type(error), error, None)
        return Image.new("RGB", (8, 8))


class Wedged(Broken):
    """Waits for a disk that never answers."""

    def read(self, index: int) -> Image.Image:
        if index > 3:
            while True:
                time.sleep(60)
        return Image.new("RGB", (8, 8))


def loader_of(pictures: Pictures, workers: int) -> Loader:
    crops = Crops(pictures, CentreCrop(8), seed=0, purpose="val")
    return Loader(
        crops,
        SkippedPictures(max_corrupt=0.0),
        total=8,
        batch_size=4,
        workers=workers,
        places=Places(8),
        training=False,
    )


def children() -> set[int]:
    found = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found.update(map(int, (task / "children").read_text().split()))
    return found


def workers_of(batches) -> set[int]:
    """Take a batch; the processes that have been started for it."""
    before = children()
    next(batches)
    return children() - before


def photographs(**changes: int) -> Loader:
    return Photos(**{"size": 8, "batch_size": 4, "train_crops": 400, "workers": 2} | changes).train_dataloader()


@pytest.mark.parametrize("computing", [True, False])
def test_a_killed_worker_is_one_clear_error(computing: bool) -> None:
    batches = iter(photographs())
    for worker in workers_of(batches):
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(UserError, match=r"has ended.*, as happens where memory runs out: lower data\.workers"):
        if computing:
            time.sleep(30)  # the error comes amid whatever is done
        list(batches)


def running(workers: set[int]) -> set[int]:
    return {process.pid for process in multiprocessing.active_children()} & workers


def ended(workers: set[int]) -> bool:
    deadline = time.monotonic() + 30
    while running(workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not running(workers)


@pytest.mark.parametrize("number", [int(signal.SIGTERM), int(signal.SIGINT)])
def test_what_stops_a_training_does_not_stop_its_workers(number: int) -> None:
    loader = photographs()
    batches = iter(loader)
    workers = workers_of(batches)
    assert len(workers) == 2
    next(batches)  # of the other worker, which has begun by then, too
    subprocess.run(["kill", f"-{number}", *map(str, workers)], check=True)
    assert len(list(batches)) == len(loader) - 2
    del batches, loader
    assert ended(workers)


def test_threads_that_block_no_signal_stop_no_worker() -> None:
    batches = iter(loader_of(Threaded(), 1))
    workers = workers_of(batches)
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    time.sleep(0.1)
    assert len(list(batches)) == 1


def test_a_worker_that_has_not_begun_ignores_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = torch.set_num_threads  # what a worker does before anything of ours
    monkeypatch.setattr(torch, "set_num_threads", lambda number: (os.kill(os.getpid(), signal.SIGTERM), begin(number)))
    assert len(list(loader_of(Threaded(), 1))) == 2


def test_batches_that_nobody_takes_leave_no_traceback(capfd: pytest.CaptureFixture) -> None:
    assert len(list(loader_of(Left(), 1))) == 2
    assert set(capfd.readouterr().err.splitlines()) == {"ValueError: a real fault"}


@pytest.mark.faults
def test_a_worker_that_waits_for_ever_ends_with_the_training() -> None:
    batches = iter(loader_of(Wedged(), 1))
    workers = workers_of(batches)
    assert workers
    del batches
    assert ended(workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_raises_is_one_clear_error(workers: int) -> None:
    crops = Crops(Broken(), CentreCrop(8), seed=0, purpose="train")
    skipped = SkippedPictures(max_corrupt=0.0)
    loader = Loader(crops, skipped, total=8, batch_size=4, workers=workers, places=Places(8), training=True)
    export = export_batches(CroppedPictures(crops, skipped, "centre"), [range(8)], 4, workers)
    for batches in (loader, export):
        with pytest.raises(UserError) as error:
            list(batches)
        assert str(error.value).startswith("data cannot be loaded: ZeroDivisionError: ") and "\n" not in str(
            error.value
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_code_shard_is_one_clear_error(workers: int, tmp_path: Path) -> None:
    export_codes(tmp_path, random_codes(12))
    dataset = stored_sequences(tmp_path)
    path = tmp_path / CodeManifest.read(tmp_path).shards[0].name
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match="damaged") as error:
        list(CodeLoader(dataset, batch_size=4, workers=workers))
    assert "\n" not in str(error.value)


def _with_little_shared_memory(load: Callable[[], list[ImageBatch]], said: Connection) -> None:
    small_shared_memory()
    try:
        said.send(f"{len(load())} batches")
    except UserError as error:
        said.send(str(error))


@pytest.mark.parametrize("side", [64, 1024])
def test_little_shared_memory_is_one_clear_error_where_batches_do_not_fit(side: int) -> None:
    received, said = multiprocessing.Pipe(duplex=False)
    load = lambda: list(photographs(size=side, train_crops=8, workers=1))  # noqa: E731
    process = multiprocessing.get_context("fork").Process(target=_with_little_shared_memory, args=(load, said))
    process.start()
    said.close()
    process.join()
    if process.exitcode == NOT_PERMITTED:
        pytest.skip("this machine lets nobody mount a file system")
    text = received.recv()
    assert text == "2 batches" if side == 64 else "too little shared memory (/dev/shm): lower data.workers" in text


def test_a_script_without_a_main_guard_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "forkserver")
    assert "by forkserver: a script needs \"if __name__ == '__main__':\"" in unguarded()
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "fork")
    assert unguarded() == ""
