"""`vltok compare`: what 'vltok evaluate' found, side by side.

```
compared/
  table.md, table.csv   one row a run, one column a figure
  psnr_length.png …     quality over codes and over bits, with the Pareto front
  lengths.png           code-length histograms
```
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from vltok.errors import UserError

_DESCRIPTION = """\
Write a table and plots of runs of 'vltok evaluate'. A column holds figures of one protocol alone: where two runs differ
in what a figure depends on, nothing is written, and the key that differs is named.
"""
_RATES = ("length", "bits_per_pixel")


def run(arguments: list[str]) -> None:
    """Run `vltok compare` with what follows the verb.

    Raises:
        UserError: A run cannot be read, or two were measured under different protocols.
    """
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: name a folder")
    from vltok.evaluation.comparison import Comparison, named
    from vltok.figures.curves import length_histograms, rate_distortion
    from vltok.files import written_whole

    comparison = Comparison(named([Path(folder) for folder in options.runs]))
    written = comparison.write(out)
    qualities = [name for name in comparison.columns if name in ("psnr", "lpips", "rfid") or "frechet" in name]
    figures = {
        f"{quality.replace('/', '-').replace(':', '-')}_{rate}": rate_distortion(comparison, rate, quality)
        for quality in qualities
        for rate in _RATES
    }
    figures["lengths"] = length_histograms(comparison.records)
    for name, figure in figures.items():
        if figure is not None:
            with written_whole(out / f"{name}.png") as path:
                figure.savefig(path, dpi=150)
            written.append(out / f"{name}.png")
    print(f"{comparison.markdown()}\nwritten: {', '.join(map(str, written))}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok compare", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("runs", nargs="+", type=str, help="folders that 'vltok evaluate' has written")
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the table and the plots")
    return parser
