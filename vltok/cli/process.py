"""What the command does to its own process: signals, warnings, logs and failures become lines. Imports no torch."""

import logging
import os
import signal
import sys
import threading
import warnings
from types import FrameType
from typing import Any

from vltok.errors import one_line
from vltok.launchers import check_numbers, forget_leaked


def stop_by_signals() -> None:
    """Let what ends a process from outside end it as Ctrl-C does, with a line; what is ignored (`nohup`) stays so."""
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker, which is ended by its parent
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt(f"by {signal.Signals(number).name}")

    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)


def fail_in_lines() -> None:
    """Let what fails out of sight, in a thread or while it is thrown away, be a line instead of a traceback."""

    def warn(failure: Any) -> None:
        text = f"in the background: {failure.exc_type.__name__}: {failure.exc_value}"
        print(f"vltok: warning: {one_line(text)}", file=sys.stderr)

    threading.excepthook = sys.unraisablehook = warn


def prepare() -> None:
    """Get this process ready for a verb.

    Raises:
        UserError: What a launcher says of it is wrong.
    """
    _quieten()
    if leaked := forget_leaked(os.environ):
        shown = " and ".join(leaked)
        warnings.warn(
            f"what {shown} tell counts for nothing: torchrun, or what sets MASTER_ADDR and MASTER_PORT too, has not "
            "started this process, which works alone",
            stacklevel=2,
        )
    check_numbers(os.environ)  # Lightning reads them while it is imported


def _quieten() -> None:
    """Silence what libraries say at start-up that a user can do nothing about."""
    # with it, jsonargparse's errors are tracebacks, and values that it does not know are another one: --debug is ours
    os.environ.pop("JSONARGPARSE_DEBUG", None)
    # xformers' compiled kernels are not needed: its operators written with PyTorch serve
    logging.getLogger("xformers").setLevel(logging.ERROR)
    # where a user has no home, matplotlib makes a folder in /tmp
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    log = logging.getLogger("vltok")
    log.handlers = [_Lines()]
    log.setLevel(logging.INFO)
    # where in the code a warning arose is no news to a user
    warnings.formatwarning = lambda message, *_, **__: f"vltok: warning: {one_line(message)}\n"


class _Lines(logging.Handler):
    """What the verbs tell of their work, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "vltok: " if record.levelno >= logging.WARNING else ""
        print(f"{prefix}{one_line(record.getMessage())}", file=sys.stderr)
