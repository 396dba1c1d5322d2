"""How far a long job is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vltok.errors import how_many
from vltok.launchers import Share, array_of
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


def name_of_share(part: str | None) -> str:
    """Which of several processes this is: see `Share`; nothing where it is the only one."""
    return Share.find(os.environ, part).name


def say_done(mine: str, missing: Sequence[int], then: str) -> None:
    """Print what a process says that ends before others.

    Args:
        mine: Its name.
        missing: The parts that are not yet whole, where there are several.
        then: What the last one does.
    """
    others = f"; not yet: {how_many(len(missing), 'part')} ({array_of(missing)})" if "part" in mine and missing else ""
    print(f"{mine} is done{others}; the last one to end {then}")


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
