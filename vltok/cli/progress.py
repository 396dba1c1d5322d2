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
        report: Callable[[int], None] | None = None
        before = 0

        def tell(done: int, total: int) -> None:
            nonlocal report, before
            if report is None:
                report = stack.enter_context(progress(purpose, total, done))
            elif done > before:
                report(done - before)
            before = done

        yield tell


def whose_part() -> str:
    """Which of several processes this is, to be added to a purpose; nothing where it is the only one."""
    rank, world_size, _ = find_rank(os.environ)
    return f", process {rank} of {world_size}" if world_size > 1 else ""


@contextlib.contextmanager
def progress(purpose: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told of every so many images that are done.

    Args:
        purpose: What is done to them.
        total: How many there are.
        done: How many were done before, and do not count for the speed.
    """
    if sys.stderr.isatty():
        with _bar(purpose, total, done) as report:
            yield report
    else:
        yield _lines(purpose, total, done)


@contextlib.contextmanager
def _bar(purpose: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.1f} images/s"),
        TimeRemainingColumn(compact=True),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=120) as bar:
        task = bar.add_task(purpose, total=total, completed=done, speed=0.0)
        now = 0

        def report(count: int) -> None:
            nonlocal now
            now += count
            bar.update(task, advance=count, speed=now / (time.monotonic() - start))

        yield report


def _lines(purpose: str, total: int, done: int) -> Callable[[int], None]:
    start = time.monotonic()
    printed = start
    now = 0

    def report(count: int) -> None:
        nonlocal now, printed
        now += count
        seconds = time.monotonic()
        if seconds - printed >= _SECONDS_BETWEEN_LINES or done + now == total:
            printed = seconds
            speed = now / max(seconds - start, 1e-9)
            left = format_seconds((total - done - now) / speed)
            print(f"{purpose}: {done + now}/{total}, {speed:.1f} images/s, {left} left", file=sys.stderr, flush=True)

    return report
