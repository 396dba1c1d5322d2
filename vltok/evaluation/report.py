"""A report of an evaluation: one HTML file that needs nothing else, with a viewer of its pictures."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jaxtyping import UInt8
from jinja2 import Environment
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.evaluation.curves import length_histograms
from vltok.evaluation.differences import flat
from vltok.evaluation.records import Record
from vltok.evaluation.words import PROTOCOL, in_words
from vltok.figures.coding_maps import draw_coding_map, error_colors, error_map, granularity_colors, magnified
from vltok.figures.examples import Example
from vltok.measures.pixels import to_bytes, to_picture, to_unit_range

_MAP_WIDTH = 256
_HASH = re.compile("[0-9a-f]{64}")
#: The error that gets the brightest colour, of pixel values in [0, 1].
_LARGEST_ERROR = 0.2


def report_html(record: Record, examples: Sequence[Example], spec: CodeSpec | None) -> str:
    """The report, with examples for its viewer; `spec` is of their codes, None for a codec."""
    template = Environment(autoescape=True).from_string(
        (files("vltok.evaluation") / "report.html").read_text(encoding="utf-8")
    )
    measured = f"measured on {record.protocol['data']['images']} pictures."
    page = template.render(
        title=f"{record.kind} {record.name}",
        subtitle=f"vltok {record.environment.get('vltok')}, {measured}",
        legend=_legend(spec),
        largest=f"{_LARGEST_ERROR:g}",
        gradient=", ".join(_css(color) for color in (error_colors()[::51] * 255).round().int().tolist()),
        values=[(in_words(name), value.shown()) for name, value in record.values.items()],
        histogram=_histogram(record),
        protocol=_protocol(record),
        pictures=[_picture(example, spec) for example in examples],
    )
    # names of files need not be text that can be written as UTF-8
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _picture(example: Example, spec: CodeSpec | None) -> dict[str, Any]:
    """What the viewer shows of an example."""
    original, codes, fixed = example.image, example.codes, example.fixed
    maps = dict.fromkeys(("map", "fixed", "error"))
    if spec is not None and spec.gridded and codes is not None:
        beneath = magnified(example.result if original is None else original, _MAP_WIDTH)
        maps["map"] = _source(to_bytes(draw_coding_map(to_unit_range(beneath)[None], codes.require_grains(), spec)[0]))
    if original is not None:
        maps["error"] = _source(_error(example.result, original))
        if spec is not None and fixed is not None:
            maps["fixed"] = _source(_error(fixed, original, spec.factors[0]))
    return {
        "key": example.key,
        "figures": _words(example.figures),
        "image": None if original is None else _source(original),
        "result": _source(example.result),
        **maps,
        "codes": None if codes is None else codes.ids.tolist(),
    }


def _error(
    result: UInt8[Tensor, "3 H W"], original: UInt8[Tensor, "3 H W"], region: int | None = None
) -> UInt8[Tensor, "3 H W"]:
    decoded, image = (to_unit_range(pixels)[None] for pixels in (result, original))
    return to_bytes(error_map(decoded, image, region, largest=2 * _LARGEST_ERROR)[0])


def _histogram(record: Record) -> str | None:
    figure = length_histograms({"": record})
    if figure is None:
        return None
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return _encoded(file)


def _legend(spec: CodeSpec | None) -> list[tuple[str, int, int]]:
    """Colour, factor and codes a region of each granularity; empty where codes lie on no grid."""
    if spec is None or not spec.gridded:
        return []
    colors = (granularity_colors(spec.granularities) * 255).round().int().tolist()
    return list(zip(map(_css, colors), spec.factors, spec.codes_per_region, strict=True))


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


def _source(pixels: UInt8[Tensor, "3 H W"]) -> str:
    file = io.BytesIO()
    to_picture(pixels).save(file, format="png")
    return _encoded(file)


def _encoded(file: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
