"""How far a verb is: what it tells its caller, and no more."""

from __future__ import annotations

from collections.abc import Callable

#: Is told how many are done, and of how many: first before anything is done, then again and again.
Progress = Callable[[int, int], None]


def counted(progress: Progress | None, total: int, done: int = 0) -> Callable[[int], None]:
    """A function that is told of every so many that are done, and tells `progress` their sum.

    Args:
        progress: Who wants to know, or None.
        total: How many there are.
        done: How many were done before.
    """

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    report(0)
    return report


def format_seconds(seconds: float) -> str:
    """A time as people say it: the two largest units."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
