"""What an evaluation gives, and the folder that keeps it.

```
evaluated/
  metrics.json   the figures, their confidence intervals, and the protocol: 'vltok compare' reads it
  images.csv     the figures of each picture (not of a prior)
  reconstructions.png  of a tokenizer: pictures, reconstructions, coding maps and error maps
  report.html    everything at one look, in any browser
  unfolding.gif  of a prior that tells its order: how its first picture unfolds, code by code
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.evaluation.measurement import Measurement
from vltok.evaluation.rate_means import RateMeans
from vltok.evaluation.records import Record
from vltok.evaluation.report import report_html
from vltok.evaluation.tables import write_table
from vltok.figures.examples import Example
from vltok.figures.grids import example_grid
from vltok.figures.unfolding import save_unfolding
from vltok.files import written_whole

_PICTURES = 8


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `vltok.evaluate` gives.

    Attributes:
        record: The figures, and under which protocol they were measured.
        measurement: The figures of each picture, and the examples.
        spec: Of the codes; None for a codec.
        drawing_order: When each code of a prior's first picture was drawn; None where that is not known.
        rates: What `vltok rate` measured of the same tokenizer, where its bundle keeps it.
        files: What was written, the report last.
        new: Whether there was something to do; otherwise the figures were there, and the record alone is told.
        missing: The parts that have not yet ended, from 1, where there are several; the figures are not there before.
    """

    record: Record
    measurement: Measurement
    spec: CodeSpec | None
    drawing_order: Int[Tensor, " t"] | None = None
    rates: RateMeans | None = None
    files: Sequence[Path] = ()
    new: bool = True
    missing: Sequence[int] = ()

    @property
    def examples(self) -> Sequence[Example]:
        """Pictures to look at, with what was made of them."""
        return self.measurement.examples

    def write(self, folder: Path) -> list[Path]:
        """Write the folder; the paths, that of the report last."""
        written, spec, order = [self.record.write(folder)], self.spec, self.drawing_order
        if spec is not None and self.record.kind == "tokenizer" and self.examples:
            with written_whole(folder / "reconstructions.png") as picture:
                example_grid(self.examples[:_PICTURES], spec).save(picture)
            written.append(folder / "reconstructions.png")
        if spec is not None and order is not None and (codes := self.examples[0].codes) is not None:
            save_unfolding(self.examples[0].result, codes, order, spec, folder / "unfolding.gif")
            written.append(folder / "unfolding.gif")
        if columns := self.measurement.per_image:
            rows = zip(self.measurement.keys, *(values.tolist() for values in columns.values()), strict=True)
            write_table(folder / "images.csv", ["key", *columns], rows)
            written.append(folder / "images.csv")
        with written_whole(folder / "report.html") as page:
            page.write_text(report_html(self.record, self.examples, self.spec, columns, self.rates), encoding="utf-8")
        return [*written, folder / "report.html"]
