"""A process that fails among several: the others end with it, and the user reads one line."""

from __future__ import annotations

import atexit
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch import Trainer
from torch.distributed import DistError

from vltok.errors import SaidElsewhere, UserError

#: Seconds that a process leaves the one that speaks for it, or waits to hear how another one ended.
PATIENCE = 5.0


@contextmanager
def failing_together(trainer: Trainer) -> Iterator[None]:
    """End all processes of a training where one fails, rather than let the others wait for it.

    The one that failed says why, and of several the first.

    Raises:
        SaidElsewhere: Another process failed, and says why.
        UserError: Another process was killed, or was not started from here.
    """
    try:
        yield
    except Exception as error:
        started = _let_go(trainer)
        # once the line is printed
        atexit.register(_kill, started)
        if trainer.world_size > 1 and _another_is_gone(error):
            raise _verdict(trainer.global_rank, started) from error
        if trainer.global_rank:
            # The first process may fail in the same way: it then says so and ends this one. Were this one to end
            # before, Lightning would kill the first unheard.
            time.sleep(PATIENCE)
        raise


def _let_go(trainer: Trainer) -> list[subprocess.Popen]:
    """The processes that this one has started; Lightning, which would kill this one with the first of them, forgets."""
    watched = getattr(trainer.strategy.launcher, "procs", [])
    started = list(watched)
    watched.clear()
    return started


def _another_is_gone(error: Exception) -> bool:
    """Whether an exchange between processes failed, rather than something of this process's own."""
    return isinstance(error, DistError) or (type(error) is RuntimeError and "gloo" in str(error).lower())


def _verdict(rank: int, started: Sequence[subprocess.Popen]) -> UserError:
    if rank:
        return SaidElsewhere("another process of this training failed")
    end = time.monotonic() + PATIENCE
    while started and time.monotonic() < end and all(process.poll() is None for process in started):
        time.sleep(0.05)
    codes = {index + 1: process.returncode for index, process in enumerate(started) if process.returncode}
    killed = {index: -code for index, code in codes.items() if code < 0}
    if killed:
        index, number = next(iter(killed.items()))
        return UserError(
            f"process {index} of this training was killed by {signal.Signals(number).name}: where nobody did so, the "
            "machine ran out of memory: lower data.workers or data.batch_size"
        )
    if codes:
        return SaidElsewhere("another process of this training failed")
    return UserError("another process of this training failed: its own line says why")


def _kill(started: Sequence[subprocess.Popen]) -> None:
    for process in started:
        process.kill()
