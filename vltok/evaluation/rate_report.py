"""A rate-distortion curve as files: its figures, a plot, and a page with a slider over the rate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vltok.codes import CodeSpec
from vltok.evaluation.curves import rate_curve
from vltok.evaluation.data_used import DataUsed
from vltok.evaluation.pages import Plot, coding_map, in_words, legend, page_of, picture_source, protocol_rows
from vltok.evaluation.rate_curves import CurvePoint, RateCurve
from vltok.evaluation.rate_means import RateMeans
from vltok.figures.examples import Example
from vltok.figures.plots import places_of, save_plot
from vltok.files import written_whole

#: A coding map is grey under a few tints.
_MAP_COLORS = 64
#: What is told of a point, and of a picture at it.
_SHOWN = ("length", "file_bits_per_pixel", "psnr", "ssim", "bits_per_pixel")


def write_curve(folder: Path, curve: RateCurve, about: Mapping[str, Any], spec: CodeSpec) -> tuple[Path, ...]:
    """Write `curve.json`, `curve.png` and `rate.html`; their paths.

    Args:
        folder: Where to.
        curve: What was measured.
        about: Of what, on which pictures: plain values, of which `tokenizer` has a `path`, and `data` is described.
        spec: Of the tokenizer's codes.
    """
    paths = folder / "curve.json", folder / "curve.png", folder / "rate.html"
    with written_whole(paths[0]) as path:
        path.write_text(json.dumps({"version": 1, **about, **curve.to_json()}, default=str), encoding="utf-8")
    figure = rate_curve(RateMeans.of(curve), curve.own.images)
    save_plot(figure, paths[1])
    with written_whole(paths[2]) as path:
        path.write_text(rate_html(curve, figure, about, spec), encoding="utf-8")
    return paths


def rate_html(curve: RateCurve, figure: Figure, about: Mapping[str, Any], spec: CodeSpec) -> str:
    """The page; `figure` is the plot of the curve, and the other arguments are those of `write_curve`."""
    shown = [*curve.points, curve.own]
    pictures = [
        {
            "key": example.key,
            "image": picture_source(example.image),
            "coded": [_coded(point.examples[place], spec) for point in shown],
        }
        for place, example in enumerate(curve.own.examples)
        if example.image is not None
    ]
    places = places_of(figure)
    says = "What pictures cost and lose at each rate; bits are those of whole files, headers included."
    if curve.missing:
        says += f" Not measured, for Pillow did not write them: {', '.join(curve.missing)}."
    data = DataUsed.described(about.get("data", {}), "val", len(curve.keys))
    return page_of(
        "rate.html",
        title=f"rates of {about['tokenizer']['path']}",
        about=[f"Measured on {data.in_words()}."],
        legend=legend(spec),
        plot=Plot.of("Rate and distortion", says, figure),
        protocol=protocol_rows(about),
        data={"points": [_point(point, places) for point in shown], "pictures": pictures},
    )


def _point(point: CurvePoint, places: Callable[[float, float], tuple[float, float]]) -> dict[str, Any]:
    mean = point.mean
    return {
        "length": mean["length"],
        "asked": f"asked for {point.asked['length']:.1f} codes" if point.asked else "its own choice",
        "figures": _told(mean),
        "at": [float(place) for place in places(mean["file_bits_per_pixel"], mean["psnr"])],
    }


def _told(figures: Mapping[str, float]) -> list[str]:
    return in_words({name: figures[name] for name in _SHOWN if name in figures})


def _coded(example: Example, spec: CodeSpec) -> dict[str, Any]:
    """An example at one rate."""
    drawn = None
    if spec.gridded and example.codes is not None and example.image is not None:
        drawn = picture_source(coding_map(example.image, example.codes, spec), _MAP_COLORS)
    return {"figures": _told(example.figures), "result": picture_source(example.result), "map": drawn}
