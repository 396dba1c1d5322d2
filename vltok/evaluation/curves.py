"""Curves over records and logs: what quality costs, how code lengths are spread, and how training met its budget."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vltok.evaluation.comparison import Comparison
from vltok.evaluation.rate_means import RateMeans
from vltok.evaluation.records import Record
from vltok.evaluation.training_logs import Curve, TrainingLog
from vltok.evaluation.values import Value
from vltok.figures.plots import COLORS, in_our_looks, label, name_lines, new_plot
from vltok.measures.meanings import meaning
from vltok.measures.ranks import rank_correlation

_MARKS = {"tokenizer": "o", "codec": "s", "prior": "^"}
_OWN_CHOICES = "what it chooses itself, each picture"
_SHARE = "share of regions"
_BINS = 32
#: What `errors_of_lengths` shows: a heading, and a line.
ERRORS_OF_LENGTHS = (
    "Error over code length",
    "Each dot is a picture: whether those that got more codes still have the larger error.",
)
#: So many pictures are enough to see how they lie.
_MOST_DOTS = 1000


@in_our_looks()
def rate_distortion(comparison: Comparison, rate: str, quality: str) -> Figure | None:
    """Quality over rate, one point a record, with the line of those that no other beats at both (Figure 6, left).

    Args:
        comparison: The records.
        rate: The figure of the horizontal axis: `length`, `length_of_samples` (of a prior) or `bits_per_pixel`.
        quality: That of the vertical one.

    Returns:
        The figure, or None where fewer than two records have both.
    """
    rates, qualities = comparison.column(rate), comparison.column(quality)
    rows = [row for row in rates if row in qualities]
    if len(rows) < 2:
        return None
    figure, (axes,) = new_plot(meaning(rate).title, meaning(quality).title)
    for row in rows:
        x, y = rates[row], qualities[row]
        mark = _MARKS[comparison.records[row].kind]
        axes.errorbar(x.value, y.value, xerr=_errors(x), yerr=_errors(y), fmt=mark, label=label(row))
    draw_front(axes, [(rates[row].value, qualities[row].value) for row in rows], quality)
    name_lines(figure)
    return figure


def draw_front(axes: Axes, points: Sequence[tuple[float, float]], quality: str) -> None:
    """Draw the line of the points of rate and quality that no other beats at both."""
    front = pareto_front(points, higher=meaning(quality).better == "higher")
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color="grey", linewidth=1, zorder=0, label="none is better at both")


@in_our_looks()
def rate_curve(
    means: RateMeans, own: Mapping[str, Float[np.ndarray, " n"]] | None = None, here: Mapping[str, float] | None = None
) -> Figure:
    """PSNR over the bits per pixel of whole files: a tokenizer at each rate, what it chooses itself, and codecs.

    Args:
        means: What was measured.
        own: The figures of each picture under what the tokenizer chooses itself.
        here: What another evaluation measured, to be marked beside it.
    """
    figure, (axes,) = new_plot(meaning("file_bits_per_pixel").title, meaning("psnr").title)
    rate, quality = "file_bits_per_pixel", "psnr"
    if own is not None:
        dots = slice(_MOST_DOTS)
        axes.plot(
            own[rate][dots], own[quality][dots], ".", markersize=3, color=COLORS[0], alpha=0.4, label=_OWN_CHOICES
        )
    if means.points:
        _draw(axes, means.points, rate, "tokenizer", color=COLORS[0], marker="o", markersize=4, linewidth=2)
        _draw(axes, means.points, "bits_per_pixel", "tokenizer, at the fixed rate", color=COLORS[0], linestyle=":")
    _draw(axes, [means.own], rate, "its own choice, mean", color=COLORS[0], linestyle="", marker="*", markersize=11)
    for color, (name, points) in zip(itertools.cycle(COLORS[1:]), means.codecs.items(), strict=False):
        _draw(axes, points, rate, label(name), color=color, linewidth=1, marker=".")
    if here is not None:
        _draw(axes, [here], rate, "measured on this page", color=COLORS[0], linestyle="", marker="D", fillstyle="none")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    name_lines(figure)
    return figure


def _draw(axes: Axes, means: Sequence[Mapping[str, float]], rate: str, name: str, **style: Any) -> None:
    axes.plot([mean[rate] for mean in means], [mean["psnr"] for mean in means], label=name, **style)


@in_our_looks()
def errors_of_lengths(measured: Mapping[str, Mapping[str, Sequence[float]]], error: str = "l1") -> Figure | None:
    """The error of each picture over its code length, a panel for each thing measured (Figure 5, for whole pictures).

    It shows whether pictures that get more codes still have the larger errors; titles tell the rank correlation.

    Args:
        measured: The `length` and the error of each picture, by what it was measured of.
        error: Which figure.

    Returns:
        The figure; None where no pictures are known.
    """
    known = {name: images for name, images in measured.items() if images.get("length") and images.get(error)}
    if not known:
        return None
    figure, panels = new_plot(meaning("length").title, meaning(error).title, len(known))
    for axes, (name, images) in zip(panels, known.items(), strict=True):
        lengths, errors = (np.asarray(images[key], dtype=float) for key in ("length", error))
        correlation = rank_correlation(torch.from_numpy(lengths), torch.from_numpy(errors))
        told = "" if correlation is None else f"rank correlation {correlation:.2f}"
        axes.set_title(f"{label(name)}\n{told}" if name else told, loc="left", fontsize="small")
        axes.plot(lengths[:_MOST_DOTS], errors[:_MOST_DOTS], ".", markersize=4, alpha=0.6)
    return figure


def pareto_front(points: Sequence[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """The points of rate and quality that no other beats at both, by rising rate; `higher` says which is better."""
    sign = -1 if higher else 1
    front: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * quality < sign * front[-1][1]:
            front.append((rate, quality))
    return front


@in_our_looks()
def length_histograms(records: Mapping[str, Record]) -> Figure | None:
    """How many images have which code length, for each record that has codes; None where none has.

    Args:
        records: By what the legend calls them; a single one without a name needs none.
    """
    found = {}
    for row, record in records.items():
        parts = {"": record.codes} if "length" in record.codes else record.codes
        for part, codes in parts.items():
            histogram = codes["length"]["histogram"]
            found[f"{row} {part}".strip()] = ([int(length) for length in histogram], list(histogram.values()))
    if not found:
        return None
    figure, (axes,) = new_plot(meaning("length").label, "share of images")
    every = np.concatenate([lengths for lengths, _ in found.values()])
    bins = np.histogram_bin_edges(every, bins=_BINS).tolist()
    for name, (lengths, counts) in found.items():
        shares = np.array(counts) / sum(counts)
        axes.hist(lengths, bins=bins, weights=shares, histtype="step", linewidth=1.5, label=label(name))
    if any(found):
        name_lines(figure)
    return figure


@in_our_looks()
def training_curves(logs: Mapping[str, TrainingLog]) -> dict[str, Figure]:
    """What runs logged over their steps (supplementary Figure 1), by name; nothing of what none has logged.

    Returns:
        `length`: the mean code length of the training batches. `ratios`: the share of each granularity but the
        coarsest, with the shares that were asked for as dotted lines. `budget`: the budget loss, weighted.
        `val_psnr`, `val_length`: PSNR and mean code length of the held-out pictures.
    """
    labels = {"length": meaning("length").label, "ratios": _SHARE, "budget": "budget loss, weighted"}
    labels |= {f"val_{name}": f"{meaning(name).label}, held-out pictures" for name in ("psnr", "length")}
    lines: dict[str, dict[str, Curve]] = {name: {} for name in labels}
    targets = set()
    for row, log in logs.items():
        for name, curve in log.curves.items():
            lines[name][row] = curve
        for factor in sorted(log.ratios)[: max(len(log.ratios) - 1, 1)]:
            lines["ratios"][f"{row}, factor {factor}"] = log.ratios[factor]
            targets |= {log.targets[factor]} if factor in log.targets else set()
    return {
        name: _over_steps(found, labels[name], targets if name == "ratios" else ())
        for name, found in lines.items()
        if found
    }


def _over_steps(curves: Mapping[str, Curve], what: str, targets: Iterable[float]) -> Figure:
    figure, (axes,) = new_plot("training steps", what)
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, linewidth=1.5, label=label(name))
    for target in targets:
        axes.axhline(target, color="grey", linewidth=1, linestyle=":", zorder=0)
    if what == _SHARE:
        axes.set_ylim(0, 1)
    name_lines(figure)
    return figure


def _errors(value: Value) -> list[list[float]] | None:
    if value.low is None or value.high is None:
        return None
    # the mean of few or equal figures may lie outside, by rounding at least
    return [[max(value.value - value.low, 0.0)], [max(value.high - value.value, 0.0)]]
