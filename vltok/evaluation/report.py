"""A report of an evaluation: one HTML file that needs nothing else, with a viewer of its pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.evaluation.curves import length_histograms
from vltok.evaluation.differences import flat
from vltok.evaluation.pages import coding_map, css, figure_source, legend, page_of, picture_source
from vltok.evaluation.records import Record
from vltok.evaluation.words import PROTOCOL, in_words
from vltok.figures.coding_maps import error_colors, error_map
from vltok.figures.examples import Example
from vltok.measures.pixels import to_bytes, to_unit_range

_HASH = re.compile("[0-9a-f]{64}")
#: The error that gets the brightest colour, of pixel values in [0, 1].
_LARGEST_ERROR = 0.2


def report_html(record: Record, examples: Sequence[Example], spec: CodeSpec | None) -> str:
    """The report, with examples for its viewer; `spec` is of their codes, None for a codec."""
    measured = f"measured on {record.protocol['data']['images']} pictures."
    return page_of(
        "report.html",
        title=f"{record.kind} {record.name}",
        subtitle=f"vltok {record.environment.get('vltok')}, {measured}",
        legend=legend(spec),
        largest=f"{_LARGEST_ERROR:g}",
        gradient=", ".join(css(color) for color in (error_colors()[::51] * 255).round().int().tolist()),
        values=[(in_words(name), value.shown()) for name, value in record.values.items()],
        histogram=_histogram(record),
        protocol=_protocol(record),
        pictures=[_picture(example, spec) for example in examples],
    )


def _picture(example: Example, spec: CodeSpec | None) -> dict[str, Any]:
    """What the viewer shows of an example."""
    original, codes, fixed = example.image, example.codes, example.fixed
    maps = dict.fromkeys(("map", "fixed", "error"))
    if spec is not None and spec.gridded and codes is not None:
        beneath = example.result if original is None else original
        maps["map"] = picture_source(coding_map(beneath, codes, spec))
    if original is not None:
        maps["error"] = picture_source(_error(example.result, original))
        if spec is not None and fixed is not None:
            maps["fixed"] = picture_source(_error(fixed, original, spec.factors[0]))
    return {
        "key": example.key,
        "figures": _words(example.figures),
        "image": None if original is None else picture_source(original),
        "result": picture_source(example.result),
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
    return None if figure is None else figure_source(figure)


def _protocol(record: Record) -> Iterator[tuple[str, str]]:
    """What the figures depend on, in words; what does not apply is left out."""
    for key, value in flat(record.protocol).items():
        if key == "crops":  # the data says it in words
            value = record.environment.get("data", {}).get("crops", value)
        if value is not None:
            yield PROTOCOL.get(key, key.replace(".", ": ").replace("_", " ")), _plain(value)


def _words(figures: Mapping[str, float]) -> list[str]:
    return [f"{in_words(name)} {value:.4g}" for name, value in figures.items() if math.isfinite(value)]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return f"SHA-256 {value[:8]}…" if _HASH.fullmatch(value) else value  # metrics.json has the whole
    return json.dumps(value)
