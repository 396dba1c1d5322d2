"""A report of an evaluation: one HTML file that needs nothing else, with a viewer of its pictures."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.evaluation.curves import length_histograms
from vltok.evaluation.differences import flat
from vltok.evaluation.records import Record
from vltok.evaluation.words import PROTOCOL, in_words
from vltok.figures.coding_maps import draw_coding_map, error_colors, error_map, granularity_colors
from vltok.figures.examples import Example
from vltok.measures.pixels import to_bytes, to_picture, to_unit_range

_MAP_WIDTH = 256
_HASH = re.compile("[0-9a-f]{64}")
#: The error that gets the brightest colour, of pixel values in [0, 1].
_LARGEST_ERROR = 0.2


def report_html(record: Record, examples: Sequence[Example], spec: CodeSpec | None) -> str:
    """The report.

    Args:
        record: The figures.
        examples: The pictures of the viewer.
        spec: Of their codes; None for a codec.
    """
    images = record.protocol["data"]["images"]
    parts = {
        "title": html.escape(f"{record.kind} {record.name}"),
        "subtitle": html.escape(f"vltok {record.environment.get('vltok')}, measured on {images} pictures."),
        "legend": _legend(spec),
        "largest": f"{_LARGEST_ERROR:g}",
        "gradient": ", ".join(_css(color) for color in (error_colors()[::51] * 255).round().int().tolist()),
        "values": _table((in_words(name), value.shown()) for name, value in record.values.items()),
        "plots": _plots(record),
        "protocol": _table(_protocol(record)),
        # what closes a script must not stand in one
        "data": json.dumps([_picture(example, spec) for example in examples]).replace("<", "\\u003c"),
    }
    page = (files("vltok.evaluation") / "report.html").read_text(encoding="utf-8")
    # in one pass: what is put in may itself read like a place of the page
    return re.sub(r"\{\{(\w+)\}\}", lambda place: _text(parts[place[1]]), page)


def _text(text: str) -> str:
    """A text that can be written as UTF-8: names of files need not be any."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _picture(example: Example, spec: CodeSpec | None) -> dict[str, Any]:
    beneath = example.result if example.image is None else example.image
    return {
        "key": example.key,
        "figures": _words(example.figures),
        "image": None if example.image is None else _source(example.image),
        "result": _source(example.result),
        "map": None if spec is None or not spec.gridded else _source(_coding_map(beneath, example, spec)),
        "fixed": None if example.fixed is None else _source(_fixed_error(example, spec)),
        "error": None if example.image is None else _source(_error(example)),
        "codes": None if example.codes is None else example.codes.ids.tolist(),
    }


def _coding_map(pixels: UInt8[Tensor, "3 H W"], example: Example, spec: CodeSpec) -> UInt8[Tensor, "3 _ _"]:
    scale = max(1, round(_MAP_WIDTH / pixels.shape[2]))
    enlarged = pixels.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    return to_bytes(draw_coding_map(to_unit_range(enlarged)[None], example.codes.require_grains(), spec)[0])


def _error(example: Example) -> UInt8[Tensor, "3 H W"]:
    decoded, original = (to_unit_range(pixels)[None] for pixels in (example.result, example.image))
    return to_bytes(error_map(decoded, original, largest=2 * _LARGEST_ERROR)[0])


def _fixed_error(example: Example, spec: CodeSpec) -> UInt8[Tensor, "3 H W"]:
    decoded, original = (to_unit_range(pixels)[None] for pixels in (example.fixed, example.image))
    return to_bytes(error_map(decoded, original, spec.factors[0], largest=2 * _LARGEST_ERROR)[0])


def _plots(record: Record) -> str:
    figure = length_histograms({"": record})
    if figure is None:
        return ""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    picture = f'<img class="plot" alt="code-length histogram" src="{_encoded(file)}">'
    return f"<section><h2>Code lengths</h2>{picture}</section>"


def _legend(spec: CodeSpec | None) -> str:
    if spec is None or not spec.gridded:
        return ""
    colors = (granularity_colors(spec.granularities) * 255).round().int().tolist()
    named = zip(spec.factors, spec.codes_per_region, colors, strict=True)
    return "<br>".join(
        f'<span style="color: {_css(color)}">■</span> factor {factor}: {codes} code{"s" if codes > 1 else ""} a region'
        for factor, codes, color in named
    )


def _protocol(record: Record) -> Iterator[tuple[str, str]]:
    """What the figures depend on, in words; what does not apply is left out."""
    for key, value in flat(record.protocol).items():
        if key == "crops":  # the data says it in words
            value = record.environment.get("data", {}).get("crops", value)
        if value is not None:
            yield PROTOCOL.get(key, key.replace(".", ": ").replace("_", " ")), _plain(value)


def _css(color: Sequence[int]) -> str:
    return f"rgb({' '.join(map(str, color))})"


def _words(figures: Mapping[str, float]) -> list[str]:
    return [f"{in_words(name)} {value:.4g}" for name, value in figures.items() if math.isfinite(value)]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return f"SHA-256 {value[:8]}…" if _HASH.fullmatch(value) else value  # metrics.json has the whole
    return json.dumps(value)


def _table(rows: Any) -> str:
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{''.join(cells)}</table>"


def _source(pixels: UInt8[Tensor, "3 H W"]) -> str:
    file = io.BytesIO()
    picture: Image.Image = to_picture(pixels)
    picture.save(file, format="png")
    return _encoded(file)


def _encoded(file: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
