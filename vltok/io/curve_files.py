"""`metrics.csv` of a run: what was logged of a training, one column a figure, one row whenever something was logged."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vltok.errors import UserError
from vltok.files import written_whole

CURVES = "metrics.csv"
STEP = "step"
#: The figures of one entry of the log, by name, and its `step`.
Row = Mapping[str, float | int]


class CurveFile:
    """Writes such a file, or goes on with the one that is there.

    What is there of the first step that is written, or of a later one, is replaced: a training that is resumed repeats
    it. A figure that comes in later gets a column all the same.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []

    def append(self, row: Row) -> None:
        """Write a row, at once."""
        if not self._columns:
            earlier = read_rows(self._path) if self._path.is_file() else []
            self._write_anew([each for each in earlier if each[STEP] < row[STEP]], row)
        elif not set(row) <= set(self._columns):
            self._write_anew(read_rows(self._path), [*self._columns, *row])
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines([row], self._columns))

    def _write_anew(self, rows: Sequence[Row], columns: Iterable[str]) -> None:
        self._columns = list(dict.fromkeys([*(name for row in rows for name in row), *columns]))
        with written_whole(self._path) as path:
            header = dict(zip(self._columns, self._columns, strict=True))
            path.write_text(_lines([header, *rows], self._columns), encoding="utf-8", newline="")


def read_rows(path: Path) -> list[dict[str, float | int]]:
    """The rows of such a file; a last line that was cut off is left out.

    Raises:
        UserError: It is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        numbers = ({name: float(value) for name, value in row.items() if value} for row in rows)
        return [{**row, STEP: int(row[STEP])} for row in numbers]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"'{path}' is not what vltok fit logs: {error}") from error


def _lines(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()
