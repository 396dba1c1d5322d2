"""Processes that look at many things, one after the other."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from vltok.errors import UserError
from vltok.loading.workers import unguarded

T = TypeVar("T")
R = TypeVar("R")


def in_processes(
    function: Callable[[T], R], items: Iterable[T], workers: int, chunk: int = 16, option: str = "--workers"
) -> Iterator[R]:
    """What a function gives of each item, in order.

    Args:
        function: One of a module, or a partial one.
        items: What it is given.
        workers: How many processes call it; up to 1 calls it in this one.
        chunk: Items that a process takes at once.
        option: What the user sets the number of processes by.

    Raises:
        UserError: A process was killed.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    # unlike a pool of multiprocessing, it does not wait for a process that was killed
    # Ctrl-C reaches them, too, but it is this process that ends them
    pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker that looks at pictures was killed, as happens where memory runs out: lower {option}{unguarded()}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
