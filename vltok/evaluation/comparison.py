"""Records side by side, one column a figure, each column under one protocol."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vltok.errors import UserError
from vltok.evaluation.differences import differences
from vltok.evaluation.records import Record
from vltok.evaluation.tables import markdown_table, write_table
from vltok.evaluation.values import Value
from vltok.files import written_whole
from vltok.measures.meanings import SETS, SPEED, meaning

_OF_SAMPLES = ("length_of_samples", "length_distance")


class Comparison:
    """Records that may stand in one table.

    Args:
        records: By the name of their row.

    Attributes:
        records: The same.
        columns: The figures that the table has.
        notes: Why a figure has no column: a timing that two records took on different machines, or what vltok fit
            measured of other data.

    Raises:
        UserError: Two records have a figure in common that they measured under different protocols, other than a timing
            and what a training measured at its end: says which key differs.
    """

    def __init__(self, records: Mapping[str, Record]) -> None:
        self.records = records
        self.columns: list[str] = []
        self.notes: list[str] = []
        for column in dict.fromkeys(itertools.chain.from_iterable(record.values for record in records.values())):
            different = self._difference(column)
            if different is None:
                self.columns.append(column)
            elif _timing(column) or any(self.records[row].of_training for row in self.column(column)):
                self.notes.append(f"{different}; it is left out of the table")
            else:
                raise UserError(f"{different}; compare those alone that agree")

    def column(self, name: str) -> dict[str, Value]:
        """The figure of each row that has it."""
        return {row: record.values[name] for row, record in self.records.items() if name in record.values}

    def markdown(self) -> str:
        """The table in Markdown; a row that lacks a figure has a dash."""
        rows = [
            [
                row,
                *(
                    record.values[name].shown(meaning(name).form) if name in record.values else "–"
                    for name in self.columns
                ),
            ]
            for row, record in self.records.items()
        ]
        return markdown_table(["", *(meaning(name).title for name in self.columns)], rows)

    def write(self, folder: Path) -> list[Path]:
        """Write `table.md` and `table.csv`; their paths."""
        paths = [folder / "table.md", folder / "table.csv"]
        with written_whole(paths[0]) as path:
            path.write_text(self.markdown(), encoding="utf-8")
        columns = [(name, part) for name in self.columns for part in ("value", "low", "high", "deviation", "note")]
        rows = []
        for row, record in self.records.items():
            values = {name: record.values[name].to_json() for name in self.columns if name in record.values}
            rows.append([row, *(values.get(name, {}).get(part) for name, part in columns)])
        write_table(paths[1], ["row", *(f"{name} {part}".removesuffix(" value") for name, part in columns)], rows)
        return paths

    def _difference(self, column: str) -> str | None:
        """How the protocols of a column differ, or None."""
        rows = [(row, _protocol(self.records[row], column)) for row in self.column(column)]
        for row, protocol in rows[1:]:
            different = differences(rows[0][1], protocol)
            if different:
                key, (first, second) = next(iter(different.items()))
                return (
                    f"'{column}' of '{rows[0][0]}' and '{row}' was measured under two protocols: {key} is {first} and "
                    f"{second}"
                )
        return None


def named(folders: Sequence[Path]) -> dict[str, Record]:
    """The records of distinct folders, by a name that tells them apart.

    Raises:
        UserError: A folder holds no record.
    """
    records = [Record.read(folder) for folder in folders]
    names = [record.name for record in records]
    return {
        name if names.count(name) == 1 else str(folder): record
        for name, folder, record in zip(names, folders, records, strict=True)
    }


def _timing(column: str) -> bool:
    """Whether a figure says as much of the machine as of what was measured."""
    return meaning(column).group == SPEED


def _protocol(record: Record, column: str) -> dict[str, Any]:
    """The part of a record's protocol on which a figure depends."""
    if _timing(column):
        return {"environment": {"device": record.environment["device"]}}
    keys = ["data", "precision"]
    if column == "lpips":
        keys.append("lpips")
    if column.startswith("error_correlation"):
        keys.append("fixed")
    for figures in ("probe", "perturbed"):
        if column.startswith(f"{figures}_"):
            keys.append(figures)
    of_sets = meaning(column).group == SETS or column.endswith(("_fid", "_kid")) or "/" in column
    if of_sets:
        keys.append("features")
    if column.endswith("_of_training"):
        return {"training_data": record.protocol.get("training_data")}
    protocol = {key: record.protocol.get(key) for key in keys}
    if of_sets or column == "ssim":
        protocol["versions"] = {"torchmetrics": record.protocol.get("versions", {}).get("torchmetrics")}
    drawn = record.protocol.get("drawn")
    # how many were drawn sets the bias of a distance; how tokens are drawn is what is compared
    if drawn is not None and (of_sets or column in _OF_SAMPLES):
        protocol["drawn"] = {"count": drawn["count"], "seed": drawn["seed"]}
    return protocol
