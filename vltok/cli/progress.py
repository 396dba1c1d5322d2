"""How far a long job is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vltok.launchers import find_rank
from vltok.verbs.counting import format_seconds

_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def shown(purpose: str) -> Iterator[Callable[[int, int], None]]:
    """Yield the `progress` of a verb's function: from its first call on, it is shown how many images are done.

    Args:
        purpose: What is done to them.
    """
    with contextlib.ExitStack() as stack:
        show: Callable[[int], None] | None = None

        def tell(done: int, total: int) -> None:
            nonlocal show
            if show is None:
                lines = contextlib.nullcontext(_lines(purpose, total, done))
                show = stack.enter_context(_bar(purpose, total, done) if sys.stderr.isatty() else lines)
            else:
                show(done)

        yield tell


def whose_part() -> str:
    """Which of several processes this is, to be added to a purpose; nothing where it is the only one."""
    rank, world_size, _ = find_rank(os.environ)
    return f", process {rank} of {world_size}" if world_size > 1 else ""


@contextlib.contextmanager
def _bar(purpose: str, total: int, before: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.1f} images/s"),
        TimeRemainingColumn(compact=True),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=120) as bar:
        task = bar.add_task(purpose, total=total, completed=before, speed=0.0)

        def show(done: int) -> None:
            bar.update(task, completed=done, speed=(done - before) / (time.monotonic() - start))

        yield show


def _lines(purpose: str, total: int, before: int) -> Callable[[int], None]:
    start = time.monotonic()
    printed, last = start, before

    def show(done: int) -> None:
        nonlocal printed, last
        seconds = time.monotonic()
        if done > last and (seconds - printed >= _SECONDS_BETWEEN_LINES or done == total):
            printed = seconds
            speed = (done - before) / max(seconds - start, 1e-9)
            left = format_seconds((total - done) / speed)
            print(f"{purpose}: {done}/{total}, {speed:.1f} images/s, {left} left", file=sys.stderr, flush=True)
        last = done

    return show
