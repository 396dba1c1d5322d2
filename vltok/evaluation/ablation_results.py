"""What came out of a table of ablations: mean ± standard deviation over seeds, as Markdown, CSV and JSON.

`table.json` holds all that the table, its plots and its page are made of: they can be made again without training.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vltok.errors import UserError
from vltok.evaluation.ablations import AblationRun, AblationTable, Column
from vltok.evaluation.data_used import DataUsed
from vltok.evaluation.tables import markdown_table, write_table
from vltok.files import written_whole

TABLE = "table.json"
#: What is kept of each picture, and of how many of a run.
_OF_PICTURES, _MOST_PICTURES = ("length", "l1"), 1000
#: Where the mean number of codes of a run is found: of its evaluation, and of what was measured when training ended.
_CODES = {
    "evaluation": ("evaluation.length", "evaluation.length_of_samples"),
    "training": ("length", "protocol.mean_length"),
}


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
    def of(cls, values: Iterable[Any]) -> Spread | None:
        """The spread of those that are finite numbers; None where there are none."""
        found = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
        if not found:
            return None
        deviation = statistics.stdev(found) if len(found) > 1 else None
        return cls(statistics.fmean(found), deviation, tuple(found))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Spread | None:
        """What was written as plain values."""
        return cls.of(tree["values"])

    def shown(self, form: str, runs: int) -> str:
        """``24.13 ± 0.05``, with its own ``(n = 2)`` where it is not that of all runs."""
        deviation = "" if self.deviation is None else f" ± {format(self.deviation, form)}"
        own = "" if len(self.values) == runs else f" (n = {len(self.values)})"
        return f"{format(self.mean, form)}{deviation}{own}"


@dataclass(frozen=True)
class AblationRow:
    """A row of a table.

    Attributes:
        name: Its name.
        seeds: Those of its finished runs.
        figures: The spread of each figure that its runs have, by the key of its column.
        codes: The mean number of codes of an image: of the ``evaluation``, and of what was measured when ``training``
            ended.
        data: Which data its figures were measured on: one, unless runs differ.
        images: Code length and error of the pictures of its evaluations.
    """

    name: str
    seeds: tuple[int, ...]
    figures: Mapping[str, Spread]
    codes: Mapping[str, Spread] = field(default_factory=dict)
    data: tuple[DataUsed, ...] = ()
    images: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, runs: Sequence[AblationRun], columns: Sequence[Column]) -> AblationRow:
        """That of its finished runs."""
        runs = sorted(runs, key=lambda run: run.seed)
        spreads = {column.key: Spread.of(run.figure(column.key) for run in runs) for column in columns}
        codes = {where: Spread.of(_first(run, keys) for run in runs) for where, keys in _CODES.items()}
        images = {
            key: [float(f"{value:.6g}") for run in runs for value in run.images.get(key, ())[:_MOST_PICTURES]]
            for key in _OF_PICTURES
        }
        return cls(
            name,
            tuple(run.seed for run in runs),
            {key: spread for key, spread in spreads.items() if spread is not None},
            {where: spread for where, spread in codes.items() if spread is not None},
            tuple(dict.fromkeys(DataUsed.of(run.evaluation or run.record) for run in runs)),
            images if all(column and np.isfinite(column).all() for column in images.values()) else {},
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        tree = asdict(self)
        return {"row": tree.pop("name"), **tree}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> AblationRow:
        """What `to_json` gave, or a vltok that told less of it.

        Raises:
            KeyError, TypeError, ValueError or AttributeError: It is something else.
        """
        figures, codes = (
            {str(key): spread for key, inner in tree.get(part, {}).items() if (spread := Spread.from_json(inner))}
            for part in ("figures", "codes")
        )
        images = {str(key): [float(value) for value in column] for key, column in tree.get("images", {}).items()}
        data = tuple(DataUsed(**used) for used in tree.get("data", ()))
        return cls(str(tree["row"]), tuple(map(int, tree["seeds"])), figures, codes, data, images)


@dataclass(frozen=True)
class AblationResults:
    """The figures of a table.

    Attributes:
        title: What is compared.
        source: What it repeats.
        columns: The figures that are shown.
        rows: What came out.
    """

    title: str
    source: str
    columns: Sequence[Column]
    rows: Sequence[AblationRow]

    @classmethod
    def of(cls, table: AblationTable, runs: Sequence[AblationRun]) -> AblationResults:
        """Those of the runs that have finished, of any rows and seeds."""
        rows = [AblationRow.of(row, [run for run in runs if run.row == row], table.shown) for row in table.rows]
        return cls(table.title, table.source, table.shown, rows)

    @classmethod
    def read(cls, path: Path) -> AblationResults:
        """Read a `table.json`.

        Raises:
            UserError: It is none.
        """
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            columns = [Column(**column) for column in tree["columns"]]
            return cls(str(tree["title"]), str(tree["source"]), columns, [*map(AblationRow.from_json, tree["rows"])])
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"'{path}' is not what vltok ablate writes: give its {TABLE}, or a table's folder"
            ) from error

    @property
    def data(self) -> str:
        """The data that the figures were measured on, in words; empty where it is not told."""
        used = dict.fromkeys(itertools.chain.from_iterable(row.data for row in self.rows))
        return "; ".join(data.in_words() for data in used)

    def markdown(self) -> str:
        """The table in Markdown; a figure that no run of a row has is a dash, and one that only some have says so."""
        rows = [[row.name, *self.cells(row), str(len(row.seeds))] for row in self.rows]
        told = [f"{self.title} ({self.source})", self.data, "Mean ± standard deviation over n seeds"]
        title = "".join(f"{part}. " for part in told if part).strip()
        return f"{title}\n\n{markdown_table(['', *(column.means.title for column in self.columns), 'n'], rows)}"

    def cells(self, row: AblationRow) -> Iterator[str]:
        """What stands in each column of a row."""
        for column in self.columns:
            spread = row.figures.get(column.key)
            yield "–" if spread is None else spread.shown(column.form, len(row.seeds))

    def write(self, folder: Path) -> list[Path]:
        """Write `table.md`, `table.csv` and `table.json`; their paths."""
        paths = [folder / "table.md", folder / "table.csv", folder / TABLE]
        with written_whole(paths[0]) as path:
            path.write_text(self.markdown(), encoding="utf-8")
        keys = [column.key for column in self.columns]
        lines = []
        for row in self.rows:
            spreads = [row.figures.get(key) for key in keys]
            cells = [(s.mean, s.deviation, len(s.values)) if s is not None else (None, None, 0) for s in spreads]
            lines.append([row.name, len(row.seeds), *itertools.chain.from_iterable(cells)])
        heads = ["row", "n", *(f"{key} {what}" for key in keys for what in ("mean", "deviation", "n"))]
        write_table(paths[1], heads, lines)
        columns = [
            {"key": column.key, "heading": column.means.name, "unit": column.means.unit or None, "format": column.form}
            for column in self.columns
        ]
        rows = [row.to_json() for row in self.rows]
        tree = {"title": self.title, "source": self.source, "columns": columns, "rows": rows}
        text = json.dumps(tree, indent=2, allow_nan=False)
        # a list of numbers is one line
        text = re.sub(r"\[\n *([-+.\de,\s]+?)\n *\]", lambda found: f"[{' '.join(found[1].split())}]", text)
        with written_whole(paths[2]) as path:
            path.write_text(f"{text}\n", encoding="utf-8")
        return paths


def _first(run: AblationRun, keys: Iterable[str]) -> Any:
    """What stands under the first of some keys that a run has."""
    return next((figure for key in keys if (figure := run.figure(key)) is not None), None)
