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

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vltok.errors import UserError, check_seed
from vltok.evaluation.ablation_results import AblationResults
from vltok.evaluation.ablations import AblationRun, AblationTable, distinct
from vltok.evaluation.differences import differences
from vltok.files import check_folder
from vltok.io import yaml_text
from vltok.io.recipes import translate_arguments
from vltok.paths import read_path
from vltok.verbs.ablation_jobs import Job, run_all
from vltok.verbs.run_folder import RunFolder

#: Options of `vltok fit` that the table sets.
_OWN = ("--config", "--seed_everything", "--resume", "--overwrite", "--print_config")


@dataclass(frozen=True)
class AblationOutcome:
    """What came of a table.

    Attributes:
        folder: Holds the runs and the table.
        results: The figures of those that are trained.
        runs: How many there are.
        failures: The names of those that failed; their `.log` files say why.
        finished: What was measured of those that are trained, also where an evaluation failed; none where a table was
            drawn again.
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
    say = progress or (lambda line: None)
    failures = run_all(planned, jobs, say, signals)
    finished = [run for job in planned if (run := job.result()) is not None]
    results = AblationResults.of(read, finished)
    for column in read.columns:
        if finished and not any(column.key in row.figures for row in results.rows):
            say(f"no run has a figure '{column.key}': its column is empty; metrics.json of a run names what there is")
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


def _planned(table: AblationTable, seeds: Sequence[int], overrides: Sequence[str], out: Path) -> list[Job]:
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
            jobs.append(Job(row, seed, folder, (*given, "--seed_everything", str(seed)), evaluations))
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
