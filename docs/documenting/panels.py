"""Panels, of which figures are made: side by side where there is room, one below the other on a phone."""

import base64
import html
import io
from collections.abc import Iterable

from PIL import Image

from vltok.codes import CodeSpec
from vltok.figures.coding_maps import granularity_colors


def row(*panels: str) -> str:
    """A figure of some panels, as HTML."""
    return f'<div class="panels">{"".join(panels)}</div>'


def drawing(shapes: Iterable[str], size: tuple[float, float], caption: str) -> str:
    """A panel with a drawing of shapes of SVG.

    Args:
        shapes: Rectangles, texts, lines.
        size: Its width and height in pixels.
        caption: Stands below it, and is what a screen reader says.
    """
    width, height = size
    label = html.escape(caption, quote=True)
    start = f'<svg viewBox="0 0 {width:g} {height:g}" style="width: {width:g}px" role="img" aria-label="{label}">'
    return _panel(f"{start}{''.join(shapes)}</svg>", caption, width)


def picture(image: Image.Image, caption: str) -> str:
    """A panel with a picture."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=88)
    address = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    size = f'width="{image.width}" height="{image.height}"'
    return _panel(f'<img src="{address}" {size} alt="{html.escape(caption, quote=True)}">', caption, image.width)


def cell(x: float, y: float, width: float, height: float, color: str = "", label: object = "") -> str:
    """A rectangle with a word in it; one without a colour is dashed."""
    style = f'fill="{color}"' if color else 'class="empty"'
    box = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" {style}/>'
    return box if label == "" else f"{box}{word(x + width / 2, y + height / 2, label, 'upon' if color else '')}"


def word(x: float, y: float, label: object, kind: str = "") -> str:
    """A text around a point; `kind` is one of the classes of `figures.css`."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{html.escape(str(label))}</text>'


def colors(spec: CodeSpec) -> list[str]:
    """The colour of each granularity, as coding maps have it."""
    levels = (granularity_colors(spec.granularities) * 255).round().int().tolist()
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in levels]


def _panel(content: str, caption: str, width: float) -> str:
    return f'<figure style="width: {width:g}px">{content}<figcaption>{html.escape(caption)}</figcaption></figure>'
