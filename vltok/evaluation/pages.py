"""What HTML reports share: one look, tables of figures with their intervals, plots, and pictures within the page."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.evaluation.differences import flat
from vltok.evaluation.values import Value
from vltok.figures.coding_maps import draw_coding_map, granularity_colors, magnified
from vltok.figures.plots import inline_svg
from vltok.measures.meanings import GROUPS, meaning
from vltok.measures.pixels import to_bytes, to_picture, to_unit_range

_MAP_WIDTH = 256
#: What the keys of a protocol mean; others are plain.
_PROTOCOL = {
    "data.pixels": "pixels",
    "data.split": "split",
    "data.size": "side of a picture, in pixels",
    "data.images": "pictures",
    "features.name": "feature network",
    "features.weights": "its weights",
    "features.package": "its package",
    "lpips.name": "network of LPIPS",
    "lpips.weights": "its weights",
    "fixed": "code of fixed length",
    "precision": "computed in",
    "versions.torchmetrics": "torchmetrics",
    "versions.pillow": "Pillow",
    "drawn.count": "pictures drawn",
    "drawn.seed": "seed of what was drawn",
}
_HASH = re.compile("[0-9a-f]{64}")


def page_of(template: str, **values: Any) -> str:
    """A template of this folder with its values; what they hold stays text."""
    environment = Environment(autoescape=True, loader=FunctionLoader(_source), undefined=StrictUndefined)
    page = environment.get_template(template).render(**values)
    # names of files need not be text that can be written as UTF-8
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _source(template: str) -> str:
    return (files("vltok.evaluation") / template).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Bar:
    """An interval, drawn: places are percents of the bar's width.

    Attributes:
        first: Where the line begins that shows how the pictures, or the others, lie.
        last: Where it ends.
        low: Where the interval begins.
        width: Its width.
        at: Where the value lies.
        text: The same in words.
    """

    first: float
    last: float
    low: float
    width: float
    at: float
    text: str

    @classmethod
    def of(cls, value: Value, form: str, among: Float[np.ndarray, " n"] | None = None) -> Bar | None:
        """That of a figure; None where it has no interval.

        Args:
            value: The figure.
            form: How its numbers are written.
            among: The figures of the pictures of which it is the mean, whose middle 90% the line shows.
        """
        low, high = value.low, value.high
        text = "95% confidence interval {} to {}"
        if value.deviation is not None:
            low, high = value.value - value.deviation, value.value + value.deviation
            text = "mean ± standard deviation, {} to {}"
        if low is None or high is None or not np.isfinite([low, value.value, high]).all():
            return None
        text = text.format(format(low, form), format(high, form))
        first, last = low - (high - low), high + (high - low)
        if among is not None and np.isfinite(among).all():
            first, last = (float(end) for end in np.percentile(among, [5, 95]))
            text += f"; of single pictures, 90% lie from {format(first, form)} to {format(last, form)}"
        return cls.between(value.value, low, high, min(first, low), max(last, high), text)

    @classmethod
    def between(cls, at: float, low: float, high: float, first: float, last: float, text: str) -> Bar:
        """That of an interval within a range that the bar's width shows."""

        def place(number: float) -> float:
            return round(100 * (number - first) / (last - first), 2) if last > first else 50.0

        return cls(place(first), place(last), place(low), round(place(high) - place(low), 2), place(at), text)


def figure_groups(
    values: Mapping[str, Value], images: Mapping[str, Float[np.ndarray, " n"]]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Figures for the table of a page, under the headings of their groups.

    Args:
        values: By name.
        images: Those of each picture, by name, as far as there are any.
    """
    found: dict[str, list[dict[str, Any]]] = {group: [] for group in GROUPS}
    for name, value in values.items():
        means = meaning(name)
        number = Value(value.value).shown(means.form, means.unit)
        row = {"name": means.name, "arrow": means.arrow, "better": means.better, "says": means.text}
        bar = Bar.of(value, means.form, images.get(name))
        found[means.group].append({**row, "shown": number, "note": value.note, "bar": bar})
    return [(group, rows) for group, rows in found.items() if rows]


def in_words(figures: Mapping[str, int | float]) -> list[str]:
    """Those of a picture that are finite: ``PSNR 24.13 dB``."""
    told = [(meaning(name), value) for name, value in figures.items() if math.isfinite(value)]
    return [f"{means.name} {means.shown(value)}" for means, value in told]


def protocol_rows(*trees: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What figures depend on, in words; what does not apply is left out."""
    for tree in trees:
        for key, value in flat(tree).items():
            if value is not None and value != {}:
                yield _PROTOCOL.get(key, key.replace(".", ": ").replace("_", " ")), _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return f"SHA-256 {value[:8]}…" if _HASH.fullmatch(value) else value  # the file of figures has the whole
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return json.dumps(value, default=str)


@dataclass(frozen=True)
class Plot:
    """A plot on a page.

    Attributes:
        name: Its heading.
        says: A line on what it shows.
        svg: It.
    """

    name: str
    says: str
    svg: Markup

    @classmethod
    def of(cls, name: str, says: str, figure: Figure | None) -> Plot | None:
        """That of a figure; None where there is none."""
        return None if figure is None else cls(name, says, Markup(inline_svg(figure, f"{name}: {says}")))


def there(plots: Iterable[Plot | None]) -> list[Plot]:
    """Those that there are."""
    return [plot for plot in plots if plot is not None]


def picture_source(pixels: UInt8[Tensor, "3 H W"], colors: int | None = None) -> str:
    """Pixels as the address of a picture; with fewer colours it takes less room."""
    picture = to_picture(pixels)
    file = io.BytesIO()
    (picture if colors is None else picture.quantize(colors)).save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def coding_map(picture: UInt8[Tensor, "3 h w"], codes: Codes, spec: CodeSpec) -> UInt8[Tensor, "3 H W"]:
    """The coding map of a picture's codes, enlarged where the picture is small."""
    beneath = magnified(picture, _MAP_WIDTH)
    return to_bytes(draw_coding_map(to_unit_range(beneath)[None], codes.require_grains(), spec)[0])


def legend(spec: CodeSpec | None) -> list[tuple[str, int, int]]:
    """Colour, factor and codes a region of each granularity; empty where codes lie on no grid."""
    if spec is None or not spec.gridded:
        return []
    colors = (granularity_colors(spec.granularities) * 255).round().int().tolist()
    return list(zip(map(css, colors), spec.factors, spec.codes_per_region, strict=True))


def css(color: Sequence[int]) -> str:
    """A colour as style sheets have it."""
    return f"rgb({' '.join(map(str, color))})"
