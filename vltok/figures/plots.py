"""What all plots share: their looks, on paper and on pages, light or dark."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vltok.errors import one_line
from vltok.files import written_whole

#: Seen well on white and on a dark page alike: at least three times as bright, or as dark.
COLORS = ("#3b7fc4", "#cf6b1f", "#2f9457", "#cc4a5b", "#8f6bc2", "#8c7a2f", "#1f9299", "#bf5a98")
#: Pages draw these in colours of their own, dark ones at night.
_OF_PAGES = {"#1f2328": "var(--ink)", "#5f6670": "var(--faint)", "#d8dee4": "var(--line)"}
_INK, _FAINT, _LINE = _OF_PAGES
_LOOKS: dict[Any, Any] = {
    "text.parse_math": False,  # names that others chose are no formulas
    "svg.fonttype": "none",
    "svg.hashsalt": "vltok",  # the same plot is the same file
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.edgecolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=COLORS),
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "errorbar.capsize": 2,
}
_LONGEST_NAME = 36
#: That many names are told beneath a plot in two columns.
_NAMES_IN_COLUMNS = 5
_LINE_HEIGHT = 0.18  # in inches


@contextlib.contextmanager
def in_our_looks() -> Iterator[None]:
    """Draw inside of it; it decorates functions that draw, too."""
    with matplotlib.rc_context(_LOOKS):
        yield


def new_plot(x: str, y: str, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty plot, small enough for a phone, and its panels, which share their axes.

    Args:
        x: What the horizontal axis is called.
        y: The same of the vertical one.
        panels: How many there are.
    """
    across = math.ceil(math.sqrt(panels))
    down = math.ceil(panels / across)
    figure = Figure(figsize=(4.8, 3.2 if panels == 1 else 0.5 + 4.0 * down / across), layout="constrained")
    every = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for axes in every[panels:]:
        axes.set_visible(False)
    if panels == 1:
        every[0].set(xlabel=x, ylabel=y)
    else:
        figure.supxlabel(x, fontsize="medium")
        figure.supylabel(y, fontsize="medium")
    return figure, every[:panels]


def name_lines(figure: Figure) -> None:
    """Tell what lines and marks are, beneath the plot."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    if handles:
        columns = 2 if len(names) >= _NAMES_IN_COLUMNS else 1
        figure.set_figheight(figure.get_figheight() + _LINE_HEIGHT * math.ceil(len(names) / columns))
        figure.legend(handles, names, loc="outside lower center", ncols=columns)


def label(name: str) -> str:
    """A name that somebody chose, as a label: in one line, and not too long."""
    line = one_line(name)
    short = line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME // 2]}…{line[-_LONGEST_NAME // 2 + 1 :]}"
    return f" {short}" if short.startswith("_") else short  # matplotlib hides what begins so


def save_plot(figure: Figure, path: Path) -> None:
    """Write a plot as a picture, of the kind of its name's ending."""
    kind = path.suffix[1:]
    with in_our_looks(), written_whole(path) as beside:
        figure.savefig(beside, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def inline_svg(figure: Figure, text: str) -> str:
    """A plot for a page: drawn in the page's colours, as wide as there is room.

    Args:
        figure: The plot.
        text: What it shows, for those who do not see it.
    """
    file = io.StringIO()
    with in_our_looks():
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    # its style would be that of the whole page
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)  # a page has several plots
    for color, of_page in _OF_PAGES.items():
        svg = svg.replace(color, of_page)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    start = (
        f'<svg class="plot" {box[0]} role="img" aria-label="{escape(text)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return re.sub(r"<svg .*?>", lambda _: start, svg, count=1, flags=re.DOTALL)


def places_of(figure: Figure) -> Callable[[float, float], tuple[float, float]]:
    """Where a point of a plot's axes lies in its `inline_svg`."""
    figure.draw_without_rendering()  # lays it out
    axes, height = figure.axes[0], figure.bbox.height

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return across * 72 / figure.dpi, (height - up) * 72 / figure.dpi

    return place
