"""Tables of ablations: a folder that says what is run, and what came out as mean ± standard deviation over seeds.

```
recipes/ablations/table6/
  table.yaml    title, source, base recipe, columns, and how each run is evaluated, at which rates
  r8_0.1.yaml   a row: what it changes in the base recipe
```
"""

import itertools
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vltok.errors import UserError, unknown
from vltok.evaluation.records import Record
from vltok.evaluation.tables import markdown_table, write_table
from vltok.files import written_whole
from vltok.io.recipes import parse_tree, read, recipe_parser
from vltok.rates import Rate

_DESCRIPTION = "table.yaml"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: The name of a figure of the run's `metrics.json`, or a dotted path into it: ``psnr``, ``protocol.steps``.
            Below ``evaluation`` stand those of its evaluation: ``evaluation.ssim``; after a rate, those of the
            evaluation at this rate: ``mean-codes=83.2 ssim``.
        heading: What stands above it.
        unit: Added to the heading.
        format: How its numbers are written, in Python's format language.
    """

    key: str
    heading: str
    unit: str | None = None
    format: str = ".4g"

    def __post_init__(self) -> None:
        try:
            format(1.0, self.format)
        except ValueError as error:
            raise UserError(
                f"column '{self.key}': format must be one for numbers, such as .2f or .1%, not '{self.format}'"
            ) from error

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return f"{self.heading} [{self.unit}]" if self.unit else self.heading


@dataclass(frozen=True)
class AblationTable:
    """What a folder of ablations describes.

    Attributes:
        title: What is compared.
        source: What it repeats, such as ``Table 6 of the paper``.
        base: The recipe that every row changes.
        columns: The figures that are shown.
        rows: The recipe of each row, by name, in the order of the files' names.
        evaluate: The options of `vltok evaluate`, with which each run is measured once it is trained; None where what
            `vltok fit` measures is enough.
        rates: At which each run is evaluated besides, whatever it was trained for (`vltok.Rate`).
    """

    title: str
    source: str
    base: Path
    columns: tuple[Column, ...]
    rows: Mapping[str, Path]
    evaluate: dict[str, Any] | None = None
    rates: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns, and those of the rates: what pictures cost and lose at each."""
        lengths = (Column(f"{rate} length", f"codes at {rate}", format=".1f") for rate in self.rates)
        qualities = (Column(f"{rate} psnr", f"PSNR at {rate}", "dB", ".2f") for rate in self.rates)
        return (*self.columns, *lengths, *qualities)

    @classmethod
    def read(cls, folder: Path) -> "AblationTable":
        """Read `table.yaml` and find the rows beside it.

        Raises:
            UserError: There is no such folder, it has no rows, or `table.yaml` is wrong.
        """
        description = folder / _DESCRIPTION
        if not description.is_file():
            raise UserError(f"'{folder}' is no table: it has no {_DESCRIPTION}, which names the base recipe")
        try:
            described = _described(read(description))
        except UserError as error:
            raise UserError(f"{description}: {error}") from error
        base = folder / described["base"]
        if not base.is_file():
            raise UserError(f"{description}: base is '{described['base']}', but there is no {base}")
        rows = {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.name != _DESCRIPTION}
        if not rows:
            raise UserError(f"'{folder}' has no rows: write a YAML file for each beside {_DESCRIPTION}")
        for row in rows:
            # each becomes a folder beside the table's own files, under its name
            if row.startswith(".") or row in ("table.md", "table.csv", "table.json"):
                raise UserError(f"'{rows[row]}': no row can be called '{row}': give the file another name")
        return cls(**{**described, "base": base, "rows": rows})


@dataclass(frozen=True)
class AblationRun:
    """A finished run of a table.

    Attributes:
        row: The name of its row.
        seed: Its `seed_everything`.
        record: What `vltok fit` measured at its end.
        evaluation: What `vltok evaluate` measured then, if it has.
        at_rates: What it measured at each rate.
    """

    row: str
    seed: int
    record: Record
    evaluation: Record | None = None
    at_rates: Mapping[str, Record] = field(default_factory=dict)

    def figure(self, key: str) -> Any:
        """What stands under the key of a column; None where nothing does."""
        rate, _, name = key.rpartition(" ")
        if rate:
            return self.at_rates[rate].figure(name) if rate in self.at_rates else None
        group, _, rest = key.partition(".")
        if group != "evaluation":
            return self.record.figure(key)
        return None if self.evaluation is None else self.evaluation.figure(rest)


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds.

    Attributes:
        mean: Its mean.
        deviation: Its standard deviation (divided by n - 1); None for a single seed.
        values: The figure of each seed.
    """

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """The spread of values; None where there are none."""
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, tuple(values))

    def shown(self, form: str, runs: int) -> str:
        """``24.13 ± 0.05``, with its own ``(n = 2)`` where it is not that of all runs."""
        deviation = "" if self.deviation is None else f" ± {format(self.deviation, form)}"
        own = "" if len(self.values) == runs else f" (n = {len(self.values)})"
        return f"{format(self.mean, form)}{deviation}{own}"


@dataclass(frozen=True)
class AblationResults:
    """The figures of a table's finished runs.

    Attributes:
        table: What was run.
        runs: Those that have finished, of any rows and seeds.
    """

    table: AblationTable
    runs: Sequence[AblationRun]

    def markdown(self) -> str:
        """The table in Markdown; a figure that no run of a row has is a dash, and one that only some have says so."""
        columns = self.table.shown
        rows = []
        for row, runs, spreads in self._rows():
            forms = zip(spreads, columns, strict=True)
            cells = ["–" if spread is None else spread.shown(column.format, len(runs)) for spread, column in forms]
            rows.append([row, *cells, str(len(runs))])
        title = f"{self.table.title} ({self.table.source}): mean ± standard deviation over n seeds."
        return f"{title}\n\n{markdown_table(['', *(column.title for column in columns), 'n'], rows)}"

    def write(self, folder: Path) -> None:
        """Write `table.md`, `table.csv` and `table.json`."""
        with written_whole(folder / "table.md") as path:
            path.write_text(self.markdown(), encoding="utf-8")
        keys = [column.key for column in self.table.shown]
        lines, tree = [], []
        for row, runs, spreads in self._rows():
            cells = [(s.mean, s.deviation, len(s.values)) if s is not None else (None, None, 0) for s in spreads]
            lines.append([row, len(runs), *itertools.chain.from_iterable(cells)])
            figures = {key: asdict(spread) for key, spread in zip(keys, spreads, strict=True) if spread is not None}
            tree.append({"row": row, "seeds": [run.seed for run in runs], "figures": figures})
        heads = ["row", "n", *(f"{key} {what}" for key in keys for what in ("mean", "deviation", "n"))]
        write_table(folder / "table.csv", heads, lines)
        columns = [asdict(column) for column in self.table.shown]
        table = {"title": self.table.title, "source": self.table.source, "columns": columns, "rows": tree}
        with written_whole(folder / "table.json") as path:
            path.write_text(json.dumps(table, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def _rows(self) -> Iterator[tuple[str, list[AblationRun], list[Spread | None]]]:
        """Each row with its runs by seed, and the spread of each column."""
        for row in self.table.rows:
            runs = sorted((run for run in self.runs if run.row == row), key=lambda run: run.seed)
            yield row, runs, [_spread(runs, column.key) for column in self.table.shown]


def _spread(runs: Sequence[AblationRun], key: str) -> Spread | None:
    values = [run.figure(key) for run in runs]
    return Spread.of([float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)])


def distinct(rates: Sequence[str]) -> tuple[str, ...]:
    """Rates as they are written elsewhere, each once.

    Raises:
        UserError: One is no rate.
    """
    return tuple(dict.fromkeys(str(Rate.of(rate)) for rate in rates))


def _described(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What `table.yaml` says of an `AblationTable`."""
    told = [each for each in fields(AblationTable) if each.name != "rows"]
    keys = [each.name for each in told]
    for key in tree:
        if key not in keys:
            raise unknown("key", key, keys)
    missing = [each.name for each in told if each.default is MISSING and tree.get(each.name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given")
    parser = recipe_parser(_DESCRIPTION)
    parser.add_class_arguments(AblationTable, "table", skip={"rows"}, instantiate=False)
    described = parser.instantiate(parse_tree(parser, {"table": tree})).table
    if not described.columns:
        raise UserError("columns must name at least one figure of metrics.json")
    return {**vars(described), "rates": distinct(described.rates)}
