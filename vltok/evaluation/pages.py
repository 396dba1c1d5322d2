"""What HTML reports share: a page of a template that needs nothing else, and pictures within it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jaxtyping import UInt8
from jinja2 import Environment
from matplotlib.figure import Figure
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.figures.coding_maps import draw_coding_map, granularity_colors, magnified
from vltok.measures.pixels import to_bytes, to_picture, to_unit_range

_MAP_WIDTH = 256


def page_of(template: str, **values: Any) -> str:
    """A template of this folder with its values; what they hold stays text."""
    source = (files("vltok.evaluation") / template).read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(source).render(**values)
    # names of files need not be text that can be written as UTF-8
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def picture_source(pixels: UInt8[Tensor, "3 H W"], colors: int | None = None) -> str:
    """Pixels as the address of a picture; with fewer colours it takes less room."""
    picture = to_picture(pixels)
    file = io.BytesIO()
    (picture if colors is None else picture.quantize(colors)).save(file, format="png")
    return _encoded(file)


def figure_source(figure: Figure) -> str:
    """A figure as the address of a picture."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return _encoded(file)


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


def _encoded(file: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
