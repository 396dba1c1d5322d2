"""How fast training is."""

from __future__ import annotations

import time


class Speed:
    """Counts what passes while a clock runs that can be stopped."""

    def __init__(self) -> None:
        self._count = 0
        self._seconds = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Let the clock run, if it does not already."""
        if self._started is None:
            self._started = time.monotonic()

    def stop(self) -> None:
        """Stop the clock: what follows is no training."""
        if self._started is not None:
            self._seconds += time.monotonic() - self._started
            self._started = None

    def add(self, count: int) -> None:
        """Count."""
        self._count += count

    def per_second(self) -> float:
        """What passed in a second, from the beginning; 0 before the clock has run."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        seconds = self._seconds + running
        return self._count / seconds if seconds else 0.0
