"""The runs of `vltok.ablate`: each a process for its training and one for each evaluation, some at a time."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vltok.evaluation.ablations import AblationRun
from vltok.evaluation.records import Record
from vltok.verbs.counting import format_seconds
from vltok.verbs.run_folder import RunFolder

if TYPE_CHECKING:
    from vltok.verbs.run_evaluation import RunEvaluation  # takes torch

_SECONDS_TO_STOP = 60
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Step:
    """A process of a run."""

    arguments: tuple[str, ...]
    log: Path

    def failure(self, code: int) -> str:
        """Why it failed, in a line."""
        lines = [line.strip() for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        said = [line for line in lines if line.startswith("vltok: ")] or [line for line in lines if line]
        reason = f"stopped by signal {-code}" if code < 0 else said[-1] if said else f"exit code {code}"
        return reason.removeprefix("vltok: ").removeprefix("error: ")


@dataclass(frozen=True)
class Job:
    """One row with one seed: it is trained, and then evaluated where the table wants that.

    Attributes:
        row: The name of the row.
        seed: Its seed.
        folder: Where its run is.
        arguments: Those of `vltok fit`.
        evaluations: What is measured of it, by rate; None is its own.
    """

    row: str
    seed: int
    folder: RunFolder
    arguments: tuple[str, ...]
    evaluations: Mapping[str | None, RunEvaluation]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.row}, seed {self.seed}"

    def next_step(self) -> _Step | None:
        """What is to be done; None when nothing is left."""
        path = self.folder.path
        if not self.folder.metrics.is_file():
            goes_on = "--resume" if self.folder.resumable else "--overwrite"
            fit = ("fit", *self.arguments, "--out", str(path), goes_on)
            return _Step(fit, path.with_name(f"{path.name}.log"))
        for evaluation in self.evaluations.values():
            if not evaluation.finished:
                log = path.with_name(f"{path.name}.{evaluation.folder.name}.log")
                return _Step(("evaluate", *evaluation.arguments), log)
        return None

    def result(self) -> AblationRun | None:
        """What was measured of it, as far as it has come; None before it is trained."""
        if not self.folder.metrics.is_file():
            return None
        done = {rate: evaluation for rate, evaluation in self.evaluations.items() if evaluation.finished}
        own = done.pop(None, None)
        at_rates = {rate: evaluation.record() for rate, evaluation in done.items() if rate is not None}
        measured = None if own is None else own.record()
        images = {} if own is None else own.images()
        return AblationRun(self.row, self.seed, Record.read(self.folder.path), measured, at_rates, images)


def run_all(jobs: Sequence[Job], at_a_time: int, say: Callable[[str], None], signals: Sequence[str]) -> list[str]:
    """Run the jobs, and say a line for each that ends; the names of those that failed."""
    import torch

    environment = {**os.environ, "OMP_NUM_THREADS": str(max(torch.get_num_threads() // at_a_time, 1))}
    waiting = collections.deque((job, step) for job in jobs if (step := job.next_step()) is not None)
    running: dict[subprocess.Popen, tuple[Job, _Step, float]] = {}
    failures: list[str] = []
    total, done = len(jobs), len(jobs) - len(waiting)
    if done:
        say(f"{done} of {total} runs have finished before")
    with _stopping(running, signals):
        while waiting or running:
            while waiting and len(running) < at_a_time:
                job, step = waiting.popleft()
                running[_start(step, environment)] = (job, step, time.monotonic())
            time.sleep(_POLL_SECONDS)
            for process in [process for process in running if process.poll() is not None]:
                job, step, start = running.pop(process)
                left = job.next_step() if process.returncode == 0 else step
                if left is not None and left.log != step.log:
                    running[_start(left, environment)] = (job, left, start)
                    continue
                done += 1
                seconds = format_seconds(time.monotonic() - start)
                if left is None:
                    say(f"[{done}/{total}] {job.name}: {seconds}")
                else:
                    failures.append(job.name)
                    reason = step.failure(process.returncode)
                    say(f"[{done}/{total}] {job.name}: failed after {seconds}: {reason}")
    return failures


def _start(step: _Step, environment: dict[str, str]) -> subprocess.Popen:
    step.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "vltok", *step.arguments]
    with step.log.open("w", encoding="utf-8") as log:
        # in a session of its own, so that an interrupt reaches it once, from here, with all that it has started; this
        # Python itself, and no shell
        return subprocess.Popen(  # nosec B603
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


@contextlib.contextmanager
def _stopping(running: Collection[subprocess.Popen], signals: Sequence[str]) -> Iterator[None]:
    """Where the block is interrupted, by one of some signals, interrupt what is running, and wait until it has ended.

    Raises:
        KeyboardInterrupt: It was; says how to go on.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("what is running is stopped; the same command goes on")

    main = threading.current_thread() is threading.main_thread()
    heard = [getattr(signal, name) for name in signals if main and hasattr(signal, name)]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    except BaseException:
        for process in running:
            _signal(process, signal.SIGINT)
        deadline = time.monotonic() + _SECONDS_TO_STOP
        for process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))
                process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:  # Windows has neither groups of processes nor most signals
            process.terminate()
