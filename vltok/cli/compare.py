"""`vltok compare`: what 'vltok evaluate' found, and what 'vltok fit' logged, side by side.

```
compared/
  table.md, table.csv   one row a run, one column a figure
  psnr_length.png …     quality over codes and over bits, with the Pareto front
  lengths.png           code-length histograms
  training_length.png … of run folders: code length, ratios and budget loss over the steps
```
"""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import ArgumentParser

from vltok.files import alone_in, check_folder, safe_name
from vltok.io.recipes import parse_options

_DESCRIPTION = """\
Write a table and plots of evaluations. RUN is a folder that 'vltok evaluate' has written, or a run folder of 'vltok
fit', whose logs give curves over the steps, and whose evaluation/ counts where there is one. A column holds figures of
one protocol alone: where two runs differ in what a figure depends on, nothing is written, and the key that differs is
named. Timings of two machines are left out instead.
"""
_RATES = ("length", "length_of_samples", "bits_per_pixel")
_QUALITIES = (
    *("psnr", "psnr_pooled", "ssim", "lpips", "rfid", "fid", "rkid", "kid"),
    *("feature_distance", "frechet_distance", "kernel_distance"),
)


def run(arguments: list[str]) -> None:
    """Run `vltok compare` with what follows the verb.

    Raises:
        UserError: A run cannot be read, or two were measured under different protocols.
    """
    options = parse_options(_parser(), arguments)
    out = check_folder("--out", options.out)
    from vltok.evaluation.comparison import Comparison, check_distinct, named
    from vltok.evaluation.curves import length_histograms, rate_distortion, training_curves
    from vltok.evaluation.training_logs import TrainingLog, is_run
    from vltok.files import written_whole

    folders = [Path(folder) for folder in options.runs]
    evaluated = [folder / "evaluation" if is_run(folder) else folder for folder in folders]
    check_distinct(evaluated)
    logs = {str(folder): TrainingLog.read(folder) for folder in folders if is_run(folder)}
    # a run folder may stand for its curves alone
    kept = [
        evaluation
        for folder, evaluation in zip(folders, evaluated, strict=True)
        if str(folder) not in logs or logs[str(folder)].empty or evaluation.is_dir()
    ]
    comparison = Comparison(named(kept))
    for note in comparison.notes:
        print(f"vltok: {note}", file=sys.stderr)
    qualities = [name for name in comparison.columns if name.partition("/")[0] in _QUALITIES]
    figures = {
        f"{safe_name(quality.replace('/', '-').replace(':', '-'))}_{rate}": rate_distortion(comparison, rate, quality)
        for quality in qualities
        for rate in _RATES
    }
    figures["lengths"] = length_histograms(comparison.records)
    figures |= {f"training_{name}": figure for name, figure in training_curves(logs).items()}
    with alone_in(out):
        written = comparison.write(out) if kept else []
        for name, figure in figures.items():
            if figure is not None:
                with written_whole(out / f"{name}.png") as path:
                    figure.savefig(path, dpi=150)
                written.append(out / f"{name}.png")
    table = f"{comparison.markdown()}\n" if kept else ""
    print(f"{table}written: {', '.join(map(str, written))}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok compare", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument(
        "runs", nargs="+", type=str, help="folders that 'vltok evaluate' has written, or run folders of 'vltok fit'"
    )
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the table and the plots")
    return parser
