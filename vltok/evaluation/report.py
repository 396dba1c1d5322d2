"""A report of an evaluation: one HTML file that needs nothing else, with a viewer of its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.evaluation.curves import ERRORS_OF_LENGTHS, errors_of_lengths, length_histograms, rate_curve
from vltok.evaluation.data_used import DataUsed
from vltok.evaluation.pages import (
    Plot,
    coding_map,
    css,
    figure_groups,
    in_words,
    legend,
    page_of,
    picture_source,
    protocol_rows,
    there,
)
from vltok.evaluation.rate_means import RateMeans
from vltok.evaluation.records import Record
from vltok.figures.coding_maps import error_colors, error_map
from vltok.figures.examples import Example
from vltok.measures.pixels import to_bytes, to_unit_range

#: What a reader wants to know first.
_AT_A_GLANCE = ("psnr", "ssim", "length", "file_bits_per_pixel", "bits_per_image")
#: The error that gets the brightest colour, of pixel values in [0, 1].
_LARGEST_ERROR = 0.2
_CAPTION = (
    "Arrows say which way is better. Bars: the thick part is the 95% confidence interval of the mean (bootstrap over "
    "the pictures), the tick the mean, and the thin line reaches over the middle 90% of the pictures."
)


def report_html(
    record: Record,
    examples: Sequence[Example],
    spec: CodeSpec | None,
    images: Mapping[str, Float[np.ndarray, " n"]] | None = None,
    rates: RateMeans | None = None,
) -> str:
    """The report.

    Args:
        record: The figures.
        examples: For its viewer.
        spec: Of their codes; None for a codec.
        images: The figures of each picture, by name.
        rates: What `vltok rate` measured of the same tokenizer.
    """
    images = images or {}
    colors = ", ".join(css(color) for color in (error_colors()[::51] * 255).round().int().tolist())
    where = {key: record.environment[key] for key in ("device", "vltok") if record.environment.get(key) is not None}
    described = record.environment.get("data")
    return page_of(
        "report.html",
        title=f"{record.kind} {record.name}",
        about=[f"Measured on {DataUsed.of(record).in_words()}.", *_at_a_glance(record)],
        legend=legend(spec),
        largest=f"{_LARGEST_ERROR:g}",
        gradient=f"linear-gradient(to right, {colors})",
        groups=figure_groups(record.values, images),
        caption=_CAPTION,
        plots=_plots(record, images, rates),
        protocol=protocol_rows(
            _protocol(record), {"data": described} if isinstance(described, Mapping) else {}, {"measured": where}
        ),
        pictures=[_picture(example, spec) for example in examples],
    )


def _at_a_glance(record: Record) -> Iterator[str]:
    """The figures that say most, in a line; none where it has none of them."""
    values = {name: record.values[name].value for name in _AT_A_GLANCE if name in record.values}
    if values:
        yield f"{', '.join(in_words(values))}."


def _plots(record: Record, images: Mapping[str, Float[np.ndarray, " n"]], rates: RateMeans | None) -> list[Plot]:
    curve = None
    if rates is not None:
        here = {name: value.value for name, value in record.values.items()}
        curve = Plot.of(
            "Rate and distortion",
            f"What pictures cost and lose at each rate, beside codecs: measured by vltok rate on {rates.data}.",
            rate_curve(rates, here=here if "file_bits_per_pixel" in here else None),
        )
    columns = {"": {name: images[name].tolist() for name in ("length", "l1") if name in images}}
    scatter = None
    if len(set(columns[""].get("length", ()))) > 1:
        scatter = errors_of_lengths(columns)
    return there(
        [
            curve,
            Plot.of("Code lengths", "How many pictures have how many codes.", length_histograms({"": record})),
            Plot.of(*ERRORS_OF_LENGTHS, scatter),
        ]
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
        "figures": in_words(example.figures),
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


def _protocol(record: Record) -> Mapping[str, Any]:
    """A record's protocol; the data says in words what its crops are."""
    told = record.environment.get("data")
    crops = told.get("crops") if isinstance(told, Mapping) else None
    return {key: value for key, value in record.protocol.items() if key != "crops" or crops is None}
