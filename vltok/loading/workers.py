"""Processes that load batches: what stops them is one clear error, and what stops the training does not stop them.

A signal often reaches all processes of a job at once: Ctrl-C, or the SIGTERM of a scheduler. The training then still
takes batches until it has finished its step and saved, so that its workers go on until it ends them itself.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vltok.errors import UserError

_SHARED_MEMORY = "/dev/shm"  # nosec B108
_IGNORED = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Failure:
    """An error of the user's that a worker met."""

    message: str


def worker_loader(dataset: Dataset, workers: int, **options: Any) -> DataLoader:
    """A loader whose workers stay when a signal stops the training, and which draws none of its random numbers.

    Args:
        dataset: What to load.
        workers: Processes that load; 0 loads in this one.
        options: More arguments of `DataLoader`.
    """
    # without a generator, each pass would draw a seed from the numbers of the training
    options |= {"num_workers": workers, "generator": torch.Generator()}
    if not workers:
        return DataLoader(dataset, **options)
    leash, end = multiprocessing.Pipe(duplex=False)
    loader = DataLoader(dataset, worker_init_fn=functools.partial(_stay, leash), **options)
    # also where Python ends first, before it waits for the processes that are left
    Finalize(loader, end.send_bytes, (b"end",), exitpriority=0)
    return loader


def load(loader: DataLoader) -> Iterator[Any]:
    """The batches of a loader.

    Raises:
        UserError: A worker sent a `Failure`, or raised an error, or ended.
    """
    with _explained(), _signals_held():
        batches = iter(loader)
    _explain_deaths()
    while True:
        with _explained():
            try:
                batch = next(batches)
            except StopIteration:
                return
        if isinstance(batch, Failure):
            raise UserError(batch.message)
        yield batch


def share(*tensors: Tensor | None) -> None:
    """Put tensors into shared memory, where this process is a worker: later, a lack of room would be met out of sight.

    Raises:
        UserError: There is no room.
    """
    if get_worker_info() is None:
        return
    room = shutil.disk_usage(_SHARED_MEMORY).free if os.path.isdir(_SHARED_MEMORY) else None
    if room is not None and sum(tensor.nbytes for tensor in tensors if tensor is not None) > room:
        raise _no_room()  # writing would end the process
    try:
        for tensor in tensors:
            if tensor is not None:
                tensor.share_memory_()
    except (OSError, RuntimeError) as error:
        raise _no_room() from error


def this_worker() -> tuple[int, int]:
    """This worker's number among the workers of its process, and how many those are; the first of one elsewhere."""
    worker = get_worker_info()
    return (0, 1) if worker is None else (worker.id, worker.num_workers)


def unguarded() -> str:
    """What else ends processes that do not begin as copies of this one: they run its script again."""
    method = multiprocessing.get_start_method()
    if method == "fork" or getattr(sys.modules["__main__"], "__file__", None) is None:
        return ""
    return f"; and processes are started by {method}: a script needs \"if __name__ == '__main__':\" around what it does"


def _no_room() -> UserError:
    return UserError(
        f"the workers that load data have too little shared memory ({_SHARED_MEMORY}): lower data.workers or "
        "data.batch_size, or give the container more (docker run --shm-size=8g)"
    )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _explanation(error) from error


def _explanation(error: Exception) -> UserError:
    if isinstance(error.__cause__, UserError):  # the loader was told of a death while it waited
        return error.__cause__
    text = str(error)
    if "shared memory" in text or "Bus error" in text:
        return _no_room()
    # one that is gone can no longer hand over the memory of a batch that it has sent
    gone = isinstance(error, ConnectionError | EOFError)
    if gone or ("DataLoader worker" in text and ("exited unexpectedly" in text or "is killed by signal" in text)):
        by = text.partition("is killed by signal: ")[2].partition(".")[0]
        return UserError(
            f"a process that loads data has ended{f' (signal: {by})' if by else ''}, as happens where memory runs out: "
            f"lower data.workers or data.batch_size{unguarded()}"
        )
    # of an error in a worker, PyTorch gives the whole traceback as its text
    lines = [line for line in text.splitlines() if line.strip()]
    name = f"{type(error).__name__}: "
    last = lines[-1].strip() if lines else ""
    return UserError(f"data cannot be loaded: {last if name in last else name + last}")


class _Deaths:
    """Handles the signal that a worker has ended, which may come while the training computes."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        with _explained():
            self._handler(number, frame)


def _explain_deaths() -> None:
    """Let PyTorch's handler of that signal, which is there since the first worker is, raise an error for users."""
    if sys.platform == "win32":
        return
    handler = signal.getsignal(signal.SIGCHLD)
    main = threading.current_thread() is threading.main_thread()
    if main and callable(handler) and not isinstance(handler, _Deaths):
        signal.signal(signal.SIGCHLD, _Deaths(handler))


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let signals wait, in this process and in those that it starts, which may not have come to ignore them."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stay(leash: Connection, worker: int) -> None:
    """Ignore signals, in all threads: a library may have some that no mask of this one concerns.

    PyTorch tells its workers to end by a message, then by SIGTERM. One that waits for a disk reads no message: it ends
    by the leash.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _tell
    threading.Thread(target=_end_by, args=(leash,), daemon=True).start()


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell of an error in a thread that hands batches over, unless it is that nobody takes them any longer."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _end_by(leash: Connection) -> None:
    leash.poll(None)  # reads nothing, so that all workers are told
    os._exit(0)
