"""`vltok.compare`: what was measured of several runs, side by side.

```
compared/
  table.md, table.csv   one row a run, one column a figure
  psnr_length.png …     quality over codes and over bits, with the Pareto front
  lengths.png           code-length histograms
  training_length.png … of run folders: code length, ratios and budget loss over the steps
```
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from vltok.errors import UserError
from vltok.evaluation.comparison import Comparison, named
from vltok.evaluation.curves import length_histograms, rate_distortion, training_curves
from vltok.evaluation.records import RECORD
from vltok.evaluation.training_logs import TrainingLog, is_run
from vltok.files import alone_in, check_folder, safe_name, written_whole
from vltok.paths import read_path

_RATES = ("length", "length_of_samples", "bits_per_pixel")
_QUALITIES = (
    *("psnr", "psnr_pooled", "ssim", "lpips", "rfid", "fid", "rkid", "kid"),
    *("feature_distance", "frechet_distance", "kernel_distance"),
)


@dataclass(frozen=True, eq=False)
class ComparedRuns:
    """What `vltok.compare` gives.

    Attributes:
        comparison: The records of the runs, and the figures that may stand in one table.
        figures: Plots by name, of the records and of what runs logged.
        files: What was written.
    """

    comparison: Comparison
    figures: Mapping[str, Figure]
    files: Sequence[Path] = ()


def compare(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str] | None = None) -> ComparedRuns:
    """Put what was measured of several runs side by side: a table and plots.

    A column holds figures of one protocol alone: where two runs differ in what a figure depends on, nothing is written,
    and the key that differs is named. Timings of two machines, and what `vltok fit` measured of other data, are left
    out.

    Args:
        folders: Folders that `vltok evaluate` or `vltok reconstruct` has written, or run folders of `vltok fit`, whose
            logs give curves over the steps. Of a run folder the record of its ``evaluation/`` counts where there is
            one, else what was measured when its training ended.
        out: The folder that receives the table and the plots; in Python, nothing is written without it.

    Raises:
        UserError: A run cannot be read, or two were measured under different protocols.
    """
    receives = None if out is None else check_folder("--out", out)
    runs = [read_path(folder) for folder in folders]
    logs = {str(run): TrainingLog.read(run) for run in runs if is_run(run)}
    measured = {run: _measured(run) for run in runs}
    if len({place.resolve() for place in measured.values()}) < len(runs):
        raise UserError("a run is given twice: name each once")
    for run in runs:
        if str(run) in logs and logs[str(run)].empty and not (measured[run] / RECORD).is_file():
            raise UserError(
                f"'{run}' has nothing to compare: no code length, PSNR or budget loss was logged, as of a prior or "
                f"before the first trainer.log_every_n_steps steps, and it has no {RECORD}, which vltok fit writes at "
                "its end, and vltok evaluate"
            )
    kept = [place for run, place in measured.items() if str(run) not in logs or (place / RECORD).is_file()]
    comparison = Comparison(named(kept))
    qualities = [name for name in comparison.columns if name.partition("/")[0] in _QUALITIES]
    figures = {
        f"{safe_name(quality.replace('/', '-').replace(':', '-'))}_{rate}": rate_distortion(comparison, rate, quality)
        for quality in qualities
        for rate in _RATES
    }
    figures["lengths"] = length_histograms(comparison.records)
    figures |= {f"training_{name}": figure for name, figure in training_curves(logs).items()}
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    if receives is None:
        return ComparedRuns(comparison, drawn)
    with alone_in(receives):
        written = comparison.write(receives) if kept else []
        for name, figure in drawn.items():
            with written_whole(receives / f"{name}.png") as path:
                figure.savefig(path, dpi=150)
            written.append(receives / f"{name}.png")
    return ComparedRuns(comparison, drawn, tuple(written))


def _measured(run: Path) -> Path:
    """The folder with the record of a run."""
    return run / "evaluation" if is_run(run) and (run / "evaluation" / RECORD).is_file() else run
