"""`vltok ablate`: trains every row of a table of ablations with several seeds, and writes the table.

```
table6/
  table.md, table.csv, table.json   mean ± standard deviation of each figure over the seeds
  r8_0.1/seed-0/                    a run folder, as 'vltok fit' leaves it
  r8_0.1/seed-0/evaluation/         what 'vltok evaluate' found, where table.yaml asks for it
  r8_0.1/seed-0.log                 what that run printed, and seed-0.evaluation.log what its evaluation did
```
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from vltok.cli.progress import format_seconds
from vltok.errors import UserError, check_seed
from vltok.evaluation.ablations import AblationResults, AblationRun, AblationTable
from vltok.evaluation.differences import differences
from vltok.evaluation.records import Record
from vltok.files import check_folder
from vltok.io.recipes import translate_arguments
from vltok.verbs.run_folder import RunFolder

if TYPE_CHECKING:
    from vltok.cli.ablation_evaluation import RunEvaluation

_DESCRIPTION = """\
Train every row of a table with every seed, each in a process of its own, and write the table of what they measured.
TABLE_DIR holds table.yaml and a recipe for each row, laid over the base recipe that table.yaml names. Where table.yaml
has options of 'vltok evaluate', every run is evaluated with them. Runs that have finished are not repeated, and those
that were stopped go on. Options that are not listed here are those of 'vltok fit' and count for every run.
"""
#: Options of `vltok fit` that the table sets.
_OWN = ("--config", "--seed_everything", "--resume", "--overwrite", "--print_config")
_SECONDS_TO_STOP = 60
_POLL_SECONDS = 0.1


def run(arguments: list[str]) -> None:
    """Run `vltok ablate` with what follows the verb.

    Raises:
        UserError: The table, a row or an option is wrong, a folder holds another run, or runs have failed; the others
            are in the table.
    """
    parser = _parser()
    if arguments[:1] in (["--help"], ["-h"]):
        parser.print_help()
        return
    if not arguments or arguments[0].startswith("-"):
        raise UserError("the first argument is the table: vltok ablate recipes/ablations/table6 --out runs/table6")
    options, overrides = parser.parse_known_args(arguments[1:])
    for argument in overrides:
        if argument.partition("=")[0] in _OWN:
            raise UserError(f"{argument.partition('=')[0]} is set by the table itself: leave it out")
    if not options.out:
        raise UserError("name the folder that receives the runs and the table, with --out DIR")
    check_folder("--out", options.out)
    if options.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {options.jobs}")
    for seed in options.seeds:
        check_seed("--seeds", seed)
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError(f"--seeds must differ, not {' '.join(map(str, options.seeds))}")
    table = AblationTable.read(Path(arguments[0]))
    translate_arguments(overrides)  # before torch is loaded
    out = Path(options.out)
    jobs = _planned(table, options.seeds, overrides, out)
    failures = _run_all([job for job in jobs if not job.finished], len(jobs), options.jobs)
    results = AblationResults(table, [job.result() for job in jobs if job.finished])
    results.write(out)
    print(f"\n{results.markdown()}\nwritten: {out / 'table.md'}, {out / 'table.csv'}, {out / 'table.json'}")
    if failures:
        raise UserError(f"{len(failures)} of {len(jobs)} runs failed: {'; '.join(failures)}; their .log files say why")


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
    """One row with one seed: it is trained, and then evaluated where the table wants that."""

    row: str
    seed: int
    folder: RunFolder
    arguments: tuple[str, ...]
    evaluation: RunEvaluation | None

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return self.next_step() is None

    def next_step(self) -> _Step | None:
        """What is to be done; None when nothing is left."""
        path = self.folder.path
        if not self.folder.metrics.is_file():
            goes_on = "--resume" if self.folder.resumable else "--overwrite"
            fit = ("fit", *self.arguments, "--out", str(path), goes_on)
            return _Step(fit, path.with_name(f"{path.name}.log"))
        if self.evaluation is not None and not self.evaluation.finished:
            return _Step(("evaluate", *self.evaluation.arguments), path.with_name(f"{path.name}.evaluation.log"))
        return None

    def result(self) -> AblationRun:
        evaluated = None if self.evaluation is None else self.evaluation.record()
        return AblationRun(self.row, self.seed, Record.read(self.folder.path), evaluated)


def _planned(table: AblationTable, seeds: Sequence[int], overrides: Sequence[str], out: Path) -> list[_Job]:
    """Every run, seed by seed, so that an early look at the table sees every row.

    Raises:
        UserError: A row is wrong, or a folder holds the run of another recipe.
    """
    from vltok.cli.ablation_evaluation import plan_evaluation
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
            recipe = yaml.safe_load(parsed.text(folder))
            _check_same(folder, recipe)
            evaluation = (
                None if table.evaluate is None else plan_evaluation(table.evaluate, recipe, folder, parsed.config.trust)
            )
            jobs.append(_Job(row, seed, folder, (*given, "--seed_everything", str(seed)), evaluation))
    return sorted(jobs, key=lambda job: seeds.index(job.seed))


def _check_same(folder: RunFolder, wanted: dict) -> None:
    if not folder.config.is_file():
        return
    found = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    different = differences({**found, "out": None}, {**wanted, "out": None})
    if different:
        key, (there, here) = next(iter(different.items()))
        raise UserError(
            f"'{folder.path}' holds a run of another recipe: {key} is {there} there and {here} here; name "
            "another --out or remove it"
        )


def _run_all(jobs: Sequence[_Job], total: int, at_a_time: int) -> list[str]:
    """Run the jobs, and print a line for each that ends; the names of those that failed."""
    import torch

    environment = {**os.environ, "OMP_NUM_THREADS": str(max(torch.get_num_threads() // at_a_time, 1))}
    waiting, running = collections.deque(jobs), {}
    done, failures = total - len(jobs), []
    if done:
        print(f"{done} of {total} runs have finished before", flush=True)
    with _stopping(running):
        while waiting or running:
            while waiting and len(running) < at_a_time:
                job = waiting.popleft()
                step = job.next_step()
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
                    print(f"[{done}/{total}] {job.name}: {seconds}", flush=True)
                else:
                    failures.append(job.name)
                    reason = step.failure(process.returncode)
                    print(f"[{done}/{total}] {job.name}: failed after {seconds}: {reason}", flush=True)
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
def _stopping(running: Collection[subprocess.Popen]) -> Iterator[None]:
    """Where the block is interrupted or terminated, interrupt what is running, and wait until it has ended.

    Raises:
        KeyboardInterrupt: It was; says how to go on.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("what is running is stopped; the same command goes on")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
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
                _signal(process, signal.SIGKILL)
                process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vltok ablate",
        usage="vltok ablate TABLE_DIR --out DIR [--seeds S ...] [--jobs J] [options of 'vltok fit']",
        description=_DESCRIPTION,
        allow_abbrev=False,
        exit_on_error=False,
        add_help=False,
    )
    parser.add_argument("--out", metavar="DIR", help="the folder that receives the runs and the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="by default 0 1 2")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="runs at a time, which share the cores")
    return parser
