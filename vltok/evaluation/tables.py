"""Tables in Markdown and CSV."""

import contextlib
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vltok.files import written_whole
from vltok.io.markdown import escaped


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, whose last line ends too; what a cell holds is shown as it is."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(escaped, line))} |\n" for line in lines)


def write_table(path: Path, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV; names of files in it need not be text."""
    with (
        written_whole(path) as beside,
        beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        csv.writer(file).writerows([heads, *rows])


def read_numbers(path: Path) -> dict[str, list[float]]:
    """The columns of a table that `write_table` wrote, of which every cell is a number."""
    with path.open(encoding="utf-8", newline="") as file:
        heads, *rows = csv.reader(file)
    found = {}
    for head, *column in zip(heads, *rows, strict=True):
        with contextlib.suppress(ValueError):
            found[head] = [float(cell) for cell in column]
    return found
