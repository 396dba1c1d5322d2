"""Curves over records and logs: what quality costs, how code lengths are spread, and how training met its budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vltok.evaluation.comparison import Comparison
from vltok.evaluation.rate_curves import CurvePoint, RateCurve
from vltok.evaluation.records import Record
from vltok.evaluation.training_logs import Curve, TrainingLog
from vltok.evaluation.values import Value
from vltok.evaluation.words import WORDS, in_words

#: What is better when it is higher; all other figures are better when they are lower.
_HIGHER = ("psnr", "psnr_pooled", "ssim")
_MARKS = {"tokenizer": "o", "codec": "s", "prior": "^"}
_OWN_CHOICES = "what it chooses itself, each picture"
_SHARE = "share of regions"
_BINS = 32


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
    figure, axes = _axes()
    for row in rows:
        x, y = rates[row], qualities[row]
        mark = _MARKS[comparison.records[row].kind]
        axes.errorbar(x.value, y.value, xerr=_errors(x), yerr=_errors(y), fmt=mark, capsize=2, label=row)
    points = [(rates[row].value, qualities[row].value) for row in rows]
    front = pareto_front(points, higher=quality in _HIGHER)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color="grey", linewidth=1, zorder=0, label="none is better at both")
    axes.set_xlabel(in_words(rate))
    axes.set_ylabel(in_words(quality))
    axes.legend(fontsize="small")
    return figure


def rate_curve(curve: RateCurve) -> Figure:
    """PSNR over the bits per pixel of whole files: a tokenizer at each rate, what it chooses itself, and codecs."""
    figure, axes = _axes()
    own = curve.own.images
    axes.scatter(own["file_bits_per_pixel"], own["psnr"], s=6, color="C0", alpha=0.3, linewidth=0, label=_OWN_CHOICES)
    if curve.points:
        _draw(axes, curve.points, "file_bits_per_pixel", "tokenizer", color="C0", marker="o", linewidth=2)
        _draw(axes, curve.points, "bits_per_pixel", "at the fixed rate", color="C0", linestyle=":")
    mean = curve.own.mean
    axes.plot(
        mean["file_bits_per_pixel"], mean["psnr"], "*", color="black", markersize=11, label="its own choice, mean"
    )
    for place, (name, points) in enumerate(curve.codecs.items(), 1):
        _draw(axes, points, "file_bits_per_pixel", name, color=f"C{place}", linewidth=1, marker=".")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(in_words("file_bits_per_pixel"))
    axes.set_ylabel(in_words("psnr"))
    axes.legend(fontsize="small")
    return figure


def _draw(axes: Axes, points: Sequence[CurvePoint], rate: str, label: str, **style: Any) -> None:
    means = [point.mean for point in points]
    axes.plot([mean[rate] for mean in means], [mean["psnr"] for mean in means], label=label, **style)


def pareto_front(points: Sequence[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """The points of rate and quality that no other beats at both, by rising rate; `higher` says which is better."""
    sign = -1 if higher else 1
    front: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * quality < sign * front[-1][1]:
            front.append((rate, quality))
    return front


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
    figure, axes = _axes()
    every = np.concatenate([lengths for lengths, _ in found.values()])
    bins = np.histogram_bin_edges(every, bins=_BINS)
    for name, (lengths, counts) in found.items():
        shares = np.array(counts) / sum(counts)
        axes.hist(lengths, bins=bins, weights=shares, histtype="step", linewidth=1.5, label=name)
    axes.set_xlabel(WORDS["length"])
    axes.set_ylabel("share of images")
    if any(found):
        axes.legend(fontsize="small")
    return figure


def training_curves(logs: Mapping[str, TrainingLog]) -> dict[str, Figure]:
    """What runs logged over their steps (supplementary Figure 1), by name; nothing of what none has logged.

    Returns:
        `length`: the mean code length of the training batches. `ratios`: the share of each granularity but the
        coarsest, with the shares that were asked for as dotted lines. `budget`: the budget loss, weighted.
        `val_psnr`, `val_length`: PSNR and mean code length of the held-out pictures.
    """
    labels = {"length": WORDS["length"], "ratios": _SHARE, "budget": "budget loss, weighted"}
    labels |= {f"val_{name}": f"{WORDS[name]}, held-out pictures" for name in ("psnr", "length")}
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


def _over_steps(curves: Mapping[str, Curve], label: str, targets: Iterable[float]) -> Figure:
    figure, axes = _axes()
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, linewidth=1.5, label=name)
    for target in targets:
        axes.axhline(target, color="grey", linewidth=1, linestyle=":", zorder=0)
    if label == _SHARE:
        axes.set_ylim(0, 1)
    axes.set_xlabel("training steps")
    axes.set_ylabel(label)
    axes.legend(fontsize="small")
    return figure


def _axes() -> tuple:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _errors(value: Value) -> list[list[float]] | None:
    if value.low is None or value.high is None:
        return None
    # the mean of few or equal figures may lie outside, by rounding at least
    return [[max(value.value - value.low, 0.0)], [max(value.high - value.value, 0.0)]]
