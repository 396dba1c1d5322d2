"""Signals that ask a training to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

#: Ctrl-C; preemption by SLURM or Kubernetes; a closed terminal; SLURM's early warning.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
#: Launchers send again what the terminal has sent to all processes: only a later Ctrl-C is another one.
_SECONDS_OF_ONE_REQUEST = 2.0


class StopSignals:
    """Turns signals into a wish to stop, which a training grants at the end of a step.

    A context manager. Within it a signal raises `KeyboardInterrupt` at once, unless `deferred`: then it is noted in
    `asked`, and only a second Ctrl-C raises. A signal that the process ignores stays ignored.

    Args:
        names: Those to hear. Ctrl-C alone, where the process is somebody else's.

    Attributes:
        asked: Whether a signal has come.
    """

    def __init__(self, names: Sequence[str] = ("SIGINT",)) -> None:
        self.names = names
        self.asked = False
        self._asked_at = 0.0
        self._deferred = False
        self._held = False
        self._process = os.getpid()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # no other may
            numbers = [getattr(signal, name) for name in self.names if hasattr(signal, name)]
            # None is a handler that is not Python's
            handlers = {number: signal.getsignal(number) for number in numbers}
            self._before = {
                number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
            }
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Hear the signals, also where a library has put a handler of its own in between."""
        for number in self._before:
            signal.signal(number, self._hear)

    def defer(self, deferred: bool) -> None:
        """Whether a signal waits to be asked for, from here on."""
        self._deferred = deferred

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No signal raises within the block; a request that comes is noted."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # a process that reads data for this one, which still needs it; the next signal counts
            signal.signal(number, signal.SIG_DFL)
            return
        now = time.monotonic()
        again = self.asked and number == signal.SIGINT and now - self._asked_at > _SECONDS_OF_ONE_REQUEST
        if not self.asked:
            self.asked, self._asked_at = True, now
        if not self._held and (again or not self._deferred):
            raise KeyboardInterrupt
