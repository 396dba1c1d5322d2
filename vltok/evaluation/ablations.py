"""Tables of ablations: a folder that says what is run, and what was measured of each run.

```
recipes/ablations/table6/
  table.yaml    title, source, base recipe, columns, and how each run is evaluated, at which rates
  r8_0.1.yaml   a row: what it changes in the base recipe
```
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vltok.errors import UserError, unknown
from vltok.evaluation.old_records import figure_name
from vltok.evaluation.records import Record
from vltok.io.recipes import parse_tree, read, recipe_parser
from vltok.measures.meanings import Meaning, meaning
from vltok.rates import Rate

_DESCRIPTION = "table.yaml"
#: What the files end in that stand beside the folders of rows.
_WRITTEN = (".md", ".csv", ".json", ".html", ".svg")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: The name of a figure of the run's `metrics.json`, or a dotted path into it: ``psnr``, ``protocol.steps``.
            Below ``evaluation`` stand those of its evaluation: ``evaluation.ssim``; after a rate, those of the
            evaluation at this rate: ``mean-codes=83.2 ssim``.
        heading: What stands above it; by default the figure's name and unit (`vltok.measures.meanings`).
        unit: Added to the heading.
        format: How its numbers are written, in Python's format language; by default as the figure's are.
    """

    key: str
    heading: str | None = None
    unit: str | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        try:
            format(1.0, self.form)
        except ValueError as error:
            raise UserError(
                f"column '{self.key}': format must be one for numbers, such as .2f or .1%, not '{self.format}'"
            ) from error

    @property
    def figure(self) -> str:
        """The name of the figure, wherever it is looked for."""
        key = self.key.rpartition(" ")[2].removeprefix("evaluation.")
        stored = re.fullmatch(r"values\.(.+)\.value", key)
        return figure_name(stored[1] if stored else key).removeprefix("protocol.").removeprefix("subject.")

    @property
    def means(self) -> Meaning:
        """What its figure means, with the heading, the unit and the format of the table where it has its own."""
        known = meaning(self.figure)
        rate = self.key.rpartition(" ")[0]
        if self.heading is not None:
            return replace(known, name=self.heading, unit=self.unit or "", form=self.form)
        name = f"{known.name} at {rate}" if rate else known.name
        return replace(known, name=name, unit=known.unit if self.unit is None else self.unit, form=self.form)

    @property
    def of_evaluation(self) -> bool:
        """Whether its figure is that of an evaluation."""
        return self.key.startswith("evaluation.")

    def called_of_evaluation(self) -> "Column":
        """The same with a heading that says so, where its figure is that of an evaluation and it has no heading."""
        if not self.of_evaluation or self.heading is not None:
            return self
        return replace(self, heading=f"{self.means.name} of the evaluation", unit=self.means.unit)

    @property
    def form(self) -> str:
        """How its numbers are written."""
        return meaning(self.figure).form if self.format is None else self.format


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
        """The columns, and those of the rates: what pictures cost and lose at each. A figure of the evaluation says so
        where training has one of its name beside it."""
        training = {column.means.title for column in self.columns if not column.of_evaluation}
        columns = [
            column.called_of_evaluation() if column.means.title in training else column for column in self.columns
        ]
        lengths = (Column(f"{rate} length") for rate in self.rates)
        qualities = (Column(f"{rate} psnr") for rate in self.rates)
        return (*columns, *lengths, *qualities)

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
            if row.startswith(".") or Path(row).suffix in _WRITTEN:
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
        images: The figures of each picture of its evaluation, by name, as far as they are kept.
    """

    row: str
    seed: int
    record: Record
    evaluation: Record | None = None
    at_rates: Mapping[str, Record] = field(default_factory=dict)
    images: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def figure(self, key: str) -> Any:
        """What stands under the key of a column; None where nothing does."""
        rate, _, name = key.rpartition(" ")
        if rate:
            return self.at_rates[rate].figure(name) if rate in self.at_rates else None
        group, _, rest = key.partition(".")
        if group != "evaluation":
            return self.record.figure(key)
        return None if self.evaluation is None else self.evaluation.figure(rest)


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
