"""`vltok.ablate`: trains every row of a table of ablations with several seeds, and writes the table.

```
table6/
  table.md, table.csv, table.json   mean ± standard deviation of each figure over the seeds
  pareto_psnr.svg, …, report.html   the same drawn: quality over codes, errors over codes; all at one look
  r8_0.1/seed-0/                    a run folder, as 'vltok fit' leaves it
  r8_0.1/seed-0/evaluation/         what 'vltok evaluate' found, where table.yaml asks for it
  r8_0.1/seed-0/rates/codes=100/    the same at a rate
  r8_0.1/seed-0.log                 what that run printed, and seed-0.evaluation.log what its evaluation did
```
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltok.errors import UserError, check_seed
from vltok.evaluation.ablation_results import AblationResults
from vltok.evaluation.ablations import AblationRun, AblationTable, distinct
from vltok.evaluation.differences import differences
from vltok.evaluation.records import Record
from vltok.files import check_folder
from vltok.io import yaml_text
from vltok.io.recipes import translate_arguments
from vltok.paths import read_path
from vltok.verbs.counting import format_seconds
from vltok.verbs.run_folder import RunFolder

if TYPE_CHECKING:
    from vltok.verbs.run_evaluation import RunEvaluation

#: Options of `vltok fit` that the table sets.
_OWN = ("--config", "--seed_everything", "--resume", "--overwrite", "--print_config")
_SECONDS_TO_STOP = 60
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class AblationOutcome:
    """What came of a table.

    Attributes:
        folder: Holds the runs and the table.
        results: The figures of those that have finished.
        runs: How many there are.
        failures: The names of those that failed; their `.log` files say why.
        finished: What was measured of those that have finished; none where a table was drawn again.
        files: What was written, the report last.
    """

    folder: Path
    results: AblationResults
    runs: int
    failures: tuple[str, ...]
    finished: tuple[AblationRun, ...]
    files: tuple[Path, ...]


def ablate(
    table: str | os.PathLike,
    out: str | os.PathLike,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    rates: Sequence[str] | None = None,
    jobs: int = 1,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
    signals: Sequence[str] = ("SIGINT",),
) -> AblationOutcome:
    """Train every row of a table with every seed, each in a process of its own, and write the table.

    Runs that have finished are not repeated, and those that were stopped go on.

    Args:
        table: The folder of `table.yaml` and of a recipe for each row; or a `table.json` that was written before, whose
            table, plots and report are made again, without training.
        out: The folder that receives the runs and the table.
        seeds: Those of the runs of a row.
        rates: At which every run is evaluated besides, such as ``mean-codes=120``, instead of those of `table.yaml`.
        jobs: Runs at a time, which share the cores.
        overrides: What is laid over every row: keys with dots, or nested, as recipes have them; or options of
            `vltok fit`.
        progress: Is told of every run that ends, in a line.
        signals: Where one of these comes, what is running is stopped, with checkpoints. Ctrl-C alone by default.

    Raises:
        UserError: The table, a row or an option is wrong, or a folder holds another run.
        KeyboardInterrupt: A signal came; the same call goes on.
    """
    options = list(overrides or ()) if not isinstance(overrides, Mapping) else list(_options(overrides))
    for option in options:
        if option.partition("=")[0] in _OWN:
            raise UserError(f"{option.partition('=')[0]} is set by the table itself: leave it out")
    folder = check_folder("--out", out)
    given = read_path(table)
    if given.is_file():
        if options or rates is not None:
            raise UserError(f"'{given}' was measured before, and is drawn again: it takes no options but --out")
        results = AblationResults.read(given)
        return AblationOutcome(folder, results, 0, (), (), _write(results, folder))
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {jobs}")
    for seed in seeds:
        check_seed("--seeds", seed)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds must differ, not {' '.join(map(str, seeds))}")
    read = AblationTable.read(given)
    if rates is not None:
        read = replace(read, rates=distinct(rates))
    translate_arguments(options)  # before torch is loaded
    planned = _planned(read, seeds, options, folder)
    failures = _run_all(planned, jobs, progress or (lambda line: None), signals)
    finished = [job.result() for job in planned if job.next_step() is None]
    results = AblationResults.of(read, finished)
    files = _write(results, folder)
    return AblationOutcome(folder, results, len(planned), tuple(failures), tuple(finished), files)


def _write(results: AblationResults, folder: Path) -> tuple[Path, ...]:
    from vltok.evaluation.ablation_report import write_report  # takes torch, and `vltok ablate --help` must not

    return (*results.write(folder), *write_report(results, folder))


def _options(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Overrides as options of the command line; a component, and a mapping by numbers, is one value."""
    for key, value in overrides.items():
        keys = value if isinstance(value, Mapping) else {}
        if keys and "class_path" not in keys and all(isinstance(inner, str) for inner in keys):
            yield from _options(value, f"{prefix}{key}.")
        else:
            yield f"--{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}"


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
class _Job:
    """One row with one seed: it is trained, and then evaluated where the table wants that, by rate."""

    row: str
    seed: int
    folder: RunFolder
    arguments: tuple[str, ...]
    evaluations: Mapping[str | None, RunEvaluation]

    @property
    def name(self) -> str:
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

    def result(self) -> AblationRun:
        own = self.evaluations.get(None)
        at_rates = {rate: evaluation.record() for rate, evaluation in self.evaluations.items() if rate is not None}
        measured = None if own is None else own.record()
        images = {} if own is None else own.images()
        return AblationRun(self.row, self.seed, Record.read(self.folder.path), measured, at_rates, images)


def _planned(table: AblationTable, seeds: Sequence[int], overrides: Sequence[str], out: Path) -> list[_Job]:
    """Every run, seed by seed, so that an early look at the table sees every row.

    Raises:
        UserError: A row is wrong, or a folder holds the run of another recipe.
    """
    from vltok.verbs.run_evaluation import plan_evaluation
    from vltok.verbs.training_recipe import TrainingRecipe

    jobs = []
    for row, path in table.rows.items():
        given = ["--config", str(table.base), "--config", str(path), *overrides]
        try:
            parsed = TrainingRecipe.of_arguments(given)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        for seed in seeds:
            folder = RunFolder(out / row / f"seed-{seed}")
            parsed.config.seed_everything = seed
            recipe = yaml_text.load(parsed.text(folder))
            _check_same(folder, recipe)
            evaluations = {
                rate: plan_evaluation(table.evaluate or {}, recipe, folder, rate, parsed.config.trust)
                for rate in ([] if table.evaluate is None else [None]) + list(table.rates)
            }
            jobs.append(_Job(row, seed, folder, (*given, "--seed_everything", str(seed)), evaluations))
    return sorted(jobs, key=lambda job: seeds.index(job.seed))


def _check_same(folder: RunFolder, wanted: dict) -> None:
    from vltok.verbs.training_recipe import TrainingRecipe

    if not folder.config.is_file():
        return
    found = yaml_text.load(folder.config.read_text(encoding="utf-8"))
    different = differences({**found, "out": None}, {**wanted, "out": None})
    if different:  # an earlier version had fewer arguments, or other names for them
        found = yaml_text.load(TrainingRecipe.of(folder.config).text(folder))
        different = differences({**found, "out": None}, {**wanted, "out": None})
    if different:
        key, (there, here) = next(iter(different.items()))
        raise UserError(
            f"'{folder.path}' holds a run of another recipe: {key} is {there} there and {here} here; name "
            "another --out or remove it"
        )


def _run_all(jobs: Sequence[_Job], at_a_time: int, say: Callable[[str], None], signals: Sequence[str]) -> list[str]:
    """Run the jobs, and say a line for each that ends; the names of those that failed."""
    import torch

    environment = {**os.environ, "OMP_NUM_THREADS": str(max(torch.get_num_threads() // at_a_time, 1))}
    waiting = collections.deque((job, step) for job in jobs if (step := job.next_step()) is not None)
    running: dict[subprocess.Popen, tuple[_Job, _Step, float]] = {}
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
