"""Checks of the arguments that every source of images takes."""

import os
import sys

from vltok.errors import UserError, check_seed

#: More is a mistake, and would stop the machine.
MOST_WORKERS = 1024
_DEFAULT_WORKERS = 8


def default_workers() -> int:
    """As many worker processes as this process may use cores, but no more than eight."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, _DEFAULT_WORKERS)


def check_loading(batch_size: int, workers: int, seed: int) -> None:
    """Check what all sources share.

    Raises:
        UserError: A batch size below 1, a number of workers that no machine starts, or no seed.
    """
    check_at_least("batch_size", batch_size, 1)
    check_workers(workers)
    check_seed("data.seed", seed)


def check_workers(workers: int) -> None:
    """Check the number of processes that read.

    Raises:
        UserError: It is negative, or no machine starts as many.
    """
    check_at_least("workers", workers, 0)
    if workers > MOST_WORKERS:
        raise UserError(f"data.workers must be at most {MOST_WORKERS}, not {workers}: each is a process")


def check_at_least(key: str, value: int, least: int) -> None:
    """Check one number.

    Raises:
        UserError: It is too small.
    """
    if value < least:
        raise UserError(f"data.{key} must be at least {least}, not {value}")
