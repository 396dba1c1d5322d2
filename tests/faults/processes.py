"""`vltok` in processes of their own, into which real faults are brought, and what came of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

_PRELOADED = [
    "vltok.cli.ablate",
    *(f"vltok.pictures.{name}" for name in ("folder", "photos", "shards")),
    "vltok.sequences.data",
    *(f"vltok.verbs.{name}" for name in ("evaluate", "fitting", "reconstruct", "sample", "tokenize")),
    "vltok.io.bundles",
    "vltok.priors.dq_transformer",
    *(f"vltok.tokenizers.{name}" for name in ("budgets", "decoders", "dqvae", "encoders", "gates", "quantizers")),
    "tests.faults.injected",
]
#: Until a process counts as one that hangs.
_SECONDS = 240.0


@dataclass(frozen=True)
class Ended:
    """What a process left.

    Attributes:
        code: Its exit code; negative where a signal ended it.
        out: What it printed.
        err: What it printed to standard error.
    """

    code: int
    out: str
    err: str

    def line(self, *expected: str) -> str:
        """The one line of a failure, in which all of `expected` stand.

        Raises:
            AssertionError: It did not fail, or not in one clear line.
        """
        assert self.code != 0, f"exit 0 on failure: {self.out}{self.err}"
        lines = [line for line in self.err.splitlines() if line.startswith(("vltok: error", "vltok: interrupted"))]
        assert "unexpected:" not in self.err and "Traceback" not in self.err, self.err[-3000:]
        assert self.code > 0, f"ended by signal {-self.code}: {self.err[-1000:]}"
        assert len(lines) == 1, f"{len(lines)} lines: {self.err[-3000:]}"
        for text in expected:
            assert re.search(text, lines[0]), f"'{text}' is not in: {lines[0]}"
        return lines[0].removeprefix("vltok: ")

    def fine(self) -> Ended:
        """The same.

        Raises:
            AssertionError: It failed.
        """
        assert self.code == 0, f"exit {self.code}: {self.err[-3000:]}"
        return self


class Running:
    """A `vltok` process that has been started.

    Args:
        arguments: What follows `vltok`.
        faults: Functions of a module, called in the process before `vltok` starts.
        cwd: Where it runs.
        environment: Variables to set there; None takes one away.
        logs: The folder for what it prints.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        faults: Sequence[Callable[[], None]],
        cwd: Path,
        environment: dict[str, str | None],
        logs: Path,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        logs.mkdir(parents=True, exist_ok=True)
        name = f"{time.monotonic_ns()}"
        self._out, self._err = logs / f"{name}.out", logs / f"{name}.err"
        words = [str(argument) for argument in arguments]
        self._process = context.Process(
            target=_run, args=(words, list(faults), cwd, environment, self._out, self._err), daemon=False
        )
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def children(self) -> list[int]:
        """The processes that it has started and that run."""
        try:
            tasks = list(Path(f"/proc/{self.pid}/task").iterdir())
            return [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:  # it has ended
            return []

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Wait until something happens.

        Raises:
            AssertionError: The process ended before.
        """
        deadline = time.monotonic() + _SECONDS
        while not happened():
            assert self.alive, f"it ended too early: {self._read()}"
            assert time.monotonic() < deadline, f"it never happened: {self._read()}"
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> Ended:
        """Wait for its end, and for what it has started.

        Raises:
            AssertionError: It hangs.
        """
        self._process.join(_SECONDS)
        hangs = self._process.is_alive()
        with contextlib.suppress(ProcessLookupError):  # it leads a group of its own
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()
        ended = self._read()
        assert not hangs, f"it hangs: {ended}"
        return ended

    def _read(self) -> Ended:
        out, err = (path.read_text(errors="replace") if path.exists() else "" for path in (self._out, self._err))
        return Ended(self._process.exitcode if self._process.exitcode is not None else 0, out, err)


def _run(
    arguments: list[str],
    faults: Sequence[Callable[[], None]],
    cwd: Path,
    environment: dict[str, str | None],
    out: Path,
    err: Path,
) -> None:
    import sys

    os.setsid()
    # a shell lets what it starts in the background ignore them
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.chdir(cwd)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # as in a process that no server has forked
    rank_zero_only.rank = int(os.environ.get("RANK", 0))  # the server has imported Lightning, which asks once
    sys.argv = ["vltok", *arguments]
    for fault in faults:
        fault()
    from vltok.cli.main import main

    raise SystemExit(main())
