"""Checks of the arguments that every source of images takes."""

import os
import sys

from vltok.errors import UserError

_MOST_WORKERS = 8


def default_workers() -> int:
    """As many worker processes as this process may use cores, but no more than eight."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


def check_loading(size: int, batch_size: int, workers: int) -> None:
    """Check what all sources share.

    Raises:
        UserError: A size or a batch size below 1, or a negative number of workers.
    """
    for key, value, least in (("size", size, 1), ("batch_size", batch_size, 1), ("workers", workers, 0)):
        check_at_least(key, value, least)


def check_at_least(key: str, value: int, least: int) -> None:
    """Check one number.

    Raises:
        UserError: It is too small.
    """
    if value < least:
        raise UserError(f"data.{key} must be at least {least}, not {value}")
