"""The plots and the page of a table of ablations, made of what its `table.json` holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vltok.evaluation.ablation_results import AblationResults, AblationRow, Spread
from vltok.evaluation.ablations import Column
from vltok.evaluation.curves import ERRORS_OF_LENGTHS, draw_front, errors_of_lengths
from vltok.evaluation.pages import Bar, Plot, page_of, there
from vltok.figures.plots import COLORS, in_our_looks, label, name_lines, new_plot, save_plot
from vltok.files import safe_name, written_whole
from vltok.measures.meanings import COST, ODDS, QUALITY, SETS, meaning

_MARKS = "os^Dv<>pPX"
#: What the horizontal axis shows.
_CODES = "length"


def write_report(results: AblationResults, folder: Path) -> list[Path]:
    """Write a plot of each kind that there is as SVG, and `report.html`, which shows them too; their paths."""
    written, plots = [], []
    for name, heading, says, figure in ablation_plots(results):
        save_plot(figure, folder / f"{name}.svg")
        written.append(folder / f"{name}.svg")
        plots.append(Plot.of(heading, says, figure))
    with written_whole(folder / "report.html") as page:
        page.write_text(ablation_html(results, there(plots), folder), encoding="utf-8")
    return [*written, folder / "report.html"]


def ablation_plots(results: AblationResults) -> Iterator[tuple[str, str, str, Figure]]:
    """The plots of a table: the name of the file, the heading, what is shown, and the figure.

    Returns:
        ``pareto_FIGURE``: of each figure of quality, over the mean number of codes (Figure 6, left). ``rates_FIGURE``:
        the same at the rates at which each row was measured, a curve a row. ``error_length``: the error of each
        picture over its code length (Figure 5).
    """
    spreads = "Bars are the standard deviation over the seeds, in both directions."
    told = set()
    for column in results.columns:
        figure, known = column.figure, meaning(column.figure)
        rated = " " in column.key
        if known.group not in (QUALITY, SETS, ODDS) or known.better is None or (figure, rated) in told:
            continue
        drawn = _rate_curves(results, figure) if rated else _pareto(results, column)
        if drawn is not None:
            told.add((figure, rated))
            name = safe_name(figure.replace("/", "-").replace(":", "-"))
            if rated:
                yield f"rates_{name}", f"{known.name} at each rate", f"A curve a row. {spreads}", drawn
            else:
                yield f"pareto_{name}", f"{known.name} over codes", f"A point a row. {spreads}", drawn
    errors = errors_of_lengths({row.name: row.images for row in results.rows})
    if errors is not None:
        yield "error_length", *ERRORS_OF_LENGTHS, errors


@in_our_looks()
def _pareto(results: AblationResults, column: Column) -> Figure | None:
    """A figure of quality over the mean number of codes; None where there are no two lengths to compare."""
    where = "evaluation" if column.key.startswith("evaluation.") else "training"
    points = {
        row.name: (row.codes[where], row.figures[column.key])
        for row in results.rows
        if where in row.codes and column.key in row.figures
    }
    if len({codes.mean for codes, _ in points.values()}) < 2:
        return None
    figure, (axes,) = new_plot(meaning(_CODES).title, meaning(column.figure).title)
    for place, (name, point) in enumerate(points.items()):
        _draw(axes, place, name, [point], linestyle="")
    draw_front(axes, [(codes.mean, quality.mean) for codes, quality in points.values()], column.figure)
    name_lines(figure)
    return figure


@in_our_looks()
def _rate_curves(results: AblationResults, figure: str) -> Figure | None:
    """A figure over the mean number of codes, of each row at each of its rates; None where there are none."""
    rates = [column.key.rpartition(" ")[0] for column in results.columns if column.key.endswith(f" {figure}")]
    plot, (axes,) = new_plot(meaning(_CODES).title, meaning(figure).title)
    for place, row in enumerate(results.rows):
        pairs = [(row.figures.get(f"{rate} {_CODES}"), row.figures.get(f"{rate} {figure}")) for rate in rates]
        points = [(codes, quality) for codes, quality in pairs if codes is not None and quality is not None]
        if points:
            _draw(axes, place, row.name, sorted(points, key=lambda point: point[0].mean))
    if not axes.has_data():
        return None
    name_lines(plot)
    return plot


def _draw(axes: Axes, place: int, name: str, points: list[tuple[Spread, Spread]], **style: Any) -> None:
    """Draw a row's points of codes and quality, with their spread in both directions."""
    codes, qualities = zip(*points, strict=True)
    axes.errorbar(
        [spread.mean for spread in codes],
        [spread.mean for spread in qualities],
        xerr=[spread.deviation or 0 for spread in codes],
        yerr=[spread.deviation or 0 for spread in qualities],
        label=label(name),
        color=COLORS[place % len(COLORS)],
        marker=_MARKS[place % len(_MARKS)],
        markersize=5,
        linewidth=1.2,
        **style,
    )


def ablation_html(results: AblationResults, plots: Sequence[Plot], folder: Path) -> str:
    """The page.

    Args:
        results: What it shows.
        plots: The plots.
        folder: Where it will lie: reports of runs that are there are linked.
    """
    seeds = sorted(set(itertools.chain.from_iterable(row.seeds for row in results.rows)))
    figures = {column.key: column.means for column in results.columns}
    return page_of(
        "ablation.html",
        title=results.title,
        about=[
            f"{results.source}{results.data and '; measured on '}{results.data}.",
            f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds)) or '(none has finished)'}.",
        ],
        heads=[{"name": means.label, "arrow": means.arrow, "better": means.better} for means in figures.values()],
        rows=[_row(results, row, folder) for row in results.rows],
        says=[(means.title, means.text) for means in figures.values() if means.text],
        plots=plots,
        protocol=[(row.name, "; ".join(data.in_words() for data in row.data)) for row in results.rows],
    )


def _row(results: AblationResults, row: AblationRow, folder: Path) -> dict[str, Any]:
    runs = [(seed, Path(row.name, f"seed-{seed}", "evaluation", "report.html")) for seed in row.seeds]
    links = [(seed, quote(path.as_posix())) for seed, path in runs if (folder / path).is_file()]
    cells = [
        {"text": text, "bar": _bar(results, row, column), "best": _best(results, row, column)}
        for column, text in zip(results.columns, results.cells(row), strict=True)
    ]
    return {"name": row.name, "n": len(row.seeds), "cells": cells, "links": links}


def _bar(results: AblationResults, row: AblationRow, column: Column) -> Bar | None:
    """Where a row lies among all rows of a column."""
    spread, every = row.figures.get(column.key), _column(results, column)
    if spread is None or len(every) < 2:
        return None
    deviation = spread.deviation or 0
    ends = [end for each in every for end in (each.mean - (each.deviation or 0), each.mean + (each.deviation or 0))]
    form, text = column.form, "mean ± standard deviation over the seeds, {} to {}; all rows lie from {} to {}"
    low, high, first, last = spread.mean - deviation, spread.mean + deviation, min(ends), max(ends)
    told = text.format(*(format(number, form) for number in (low, high, first, last)))
    return Bar.between(spread.mean, low, high, first, last, told) if last > first else None


def _best(results: AblationResults, row: AblationRow, column: Column) -> bool:
    """Whether no row has a better mean; what a row costs is chosen, and none is the best by it."""
    better, spread = column.means.better, row.figures.get(column.key)
    if better is None or spread is None or column.means.group == COST:
        return False
    means = [each.mean for each in _column(results, column)]
    return len(set(means)) > 1 and spread.mean == (max(means) if better == "higher" else min(means))


def _column(results: AblationResults, column: Column) -> list[Spread]:
    return [row.figures[column.key] for row in results.rows if column.key in row.figures]
