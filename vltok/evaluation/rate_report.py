"""A rate-distortion curve as files: its figures, a plot, and a page with a slider over the rate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vltok.codes import CodeSpec
from vltok.evaluation.curves import rate_curve
from vltok.evaluation.pages import coding_map, legend, page_of, picture_source
from vltok.evaluation.rate_curves import CurvePoint, RateCurve
from vltok.figures.examples import Example
from vltok.files import written_whole

#: A coding map is grey under a few tints.
_MAP_COLORS = 64


def write_curve(folder: Path, curve: RateCurve, about: Mapping[str, Any], spec: CodeSpec) -> tuple[Path, ...]:
    """Write `curve.json`, `curve.png` and `rate.html`; their paths.

    Args:
        folder: Where to.
        curve: What was measured.
        about: Of what, on which pictures: plain values, of which `tokenizer` has a `path`.
        spec: Of the tokenizer's codes.
    """
    paths = folder / "curve.json", folder / "curve.png", folder / "rate.html"
    with written_whole(paths[0]) as path:
        path.write_text(json.dumps({"version": 1, **about, **curve.to_json()}, default=str), encoding="utf-8")
    with written_whole(paths[1]) as path:
        rate_curve(curve).savefig(path, format="png", dpi=150)
    with written_whole(paths[2]) as path:
        path.write_text(rate_html(curve, str(about["tokenizer"]["path"]), spec), encoding="utf-8")
    return paths


def rate_html(curve: RateCurve, name: str, spec: CodeSpec) -> str:
    """The page.

    Args:
        curve: What it shows.
        name: What the tokenizer is called.
        spec: Of its codes.
    """
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
    data = {
        "points": [_numbers(point) for point in shown],
        "picks": [
            [float(f"{bits:.4g}"), float(f"{decibels:.4g}")]
            for bits, decibels in zip(curve.own.images["file_bits_per_pixel"], curve.own.images["psnr"], strict=True)
        ],
        "codecs": {codec: [_numbers(point) for point in points] for codec, points in curve.codecs.items()},
        "pictures": pictures,
    }
    return page_of(
        "rate.html", name=name, count=len(curve.keys), legend=legend(spec), missing=", ".join(curve.missing), data=data
    )


def _numbers(point: CurvePoint) -> dict[str, Any]:
    return {"asked": dict(point.asked), **point.mean}


def _coded(example: Example, spec: CodeSpec) -> dict[str, Any]:
    """An example at one rate."""
    drawn = None
    if spec.gridded and example.codes is not None and example.image is not None:
        drawn = picture_source(coding_map(example.image, example.codes, spec), _MAP_COLORS)
    return {**example.figures, "result": picture_source(example.result), "map": drawn}
