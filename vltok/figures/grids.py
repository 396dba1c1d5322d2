"""Grids of pictures with rows that are named: what a tokenizer made of its images, at one look."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad
from torchvision.utils import make_grid

from vltok.codes import Codes, CodeSpec
from vltok.figures.coding_maps import draw_coding_map, error_colors, error_map, granularity_colors, magnified
from vltok.figures.examples import Example
from vltok.measures.pixels import psnr, to_bytes, to_picture, to_unit_range

_INK, _FAINT, _PAPER = (32, 32, 32), (110, 110, 110), (255, 255, 255)
_LARGEST_ERROR = 0.3
#: Of a grid of drawn pictures, in pixels: between pictures, and the line below each.
_BORDER, _CAPTION = 4, 18
#: So wide that a legend has room.
_NARROWEST = 480
#: Of a legend: the colours of the columns of pixels of its swatch, and what it says.
_Entry = tuple[list[list[int]], str]


def reconstruction_grid(
    images: Float[Tensor, "b 3 H W"],
    reconstructions: Float[Tensor, "b 3 H W"],
    codes: Codes,
    spec: CodeSpec,
    width: int = 192,
    fixed: Float[Tensor, "b 3 H W"] | None = None,
) -> Image.Image:
    """One column for each image: input, reconstruction, coding map and error map, with PSNR and code length below.

    Below the columns stands what the colours mean. Codes that lie on no grid have no coding map. To write it::

        with written_whole("reconstructions.png") as path:
            reconstruction_grid(images, tokenizer.decode(codes), codes, tokenizer.spec).save(path)

    Args:
        images: The inputs, in [-1, 1].
        reconstructions: What the tokenizer made of them, about in [-1, 1].
        codes: Their codes.
        spec: The tokenizer's `spec`.
        width: About how many pixels a picture is drawn wide; small ones are enlarged by a whole number.
        fixed: What a code of fixed length made of the images; its error map then stands below the coding map.

    Returns:
        An RGB picture; `numpy.asarray` of it is what TensorBoard's `add_image(..., dataformats="HWC")` takes.
    """
    images, reconstructions, codes = images.float().cpu(), reconstructions.float().cpu(), codes.to("cpu")
    beneath = magnified(images, width)  # the map's lines stay thin when they are drawn on the enlarged pictures
    region = spec.factors[0] if spec.gridded else None
    rows = {"input": beneath, "reconstruction": magnified(reconstructions, width)}
    if spec.gridded:
        rows["coding map"] = draw_coding_map(beneath, codes.require_grains(), spec)
    for name, decoded in {"error, fixed length": fixed, "error map": reconstructions}.items():
        if decoded is not None:
            rows[name] = magnified(error_map(decoded.float().cpu(), images, region, largest=_LARGEST_ERROR), width)
    ratios, lengths = psnr(reconstructions, images).tolist(), codes.lengths.tolist()
    captions = [(f"{ratio:.1f} dB", f"{length} codes") for ratio, length in zip(ratios, lengths, strict=True)]
    return _lay_out(rows, captions, spec)


def example_grid(examples: Sequence[Example], spec: CodeSpec) -> Image.Image:
    """The `reconstruction_grid` of pictures that were measured, which have codes; one below another for each size."""
    sizes: dict[torch.Size, list[Example]] = {}
    for each in examples:
        sizes.setdefault(each.result.shape, []).append(each)
    return stacked([_grid_of(alike, spec) for alike in sizes.values()])


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below another, on white."""
    sheet = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), _PAPER)
    top = 0
    for each in pictures:
        sheet.paste(each, (0, top))
        top += each.height
    return sheet


def _grid_of(examples: Sequence[Example], spec: CodeSpec) -> Image.Image:
    """The `reconstruction_grid` of pictures of one size."""
    images, results = (
        torch.stack(pixels) for pixels in zip(*((each.image, each.result) for each in examples), strict=True)
    )
    fixed = [each.fixed for each in examples if each.fixed is not None]
    return reconstruction_grid(
        to_unit_range(images),
        to_unit_range(results),
        Codes.concatenate([each.codes for each in examples if each.codes is not None]),
        spec,
        fixed=to_unit_range(torch.stack(fixed)) if fixed else None,
    )


def sample_grid(
    images: Float[Tensor, "b 3 H W"],
    codes: Codes,
    spec: CodeSpec,
    columns: int = 8,
    width: int = 128,
    classes: Sequence[str] | None = None,
) -> Image.Image:
    """Drawn pictures side by side; on their right, where codes lie on a grid, their coding maps in the same order.

    Below each stand its class or text, if it has one, and its number of codes; below all, what the maps' colours mean.

    Args:
        images: The pictures, about in [-1, 1].
        codes: What they were decoded from.
        spec: The tokenizer's `spec`.
        columns: Pictures of a row.
        width: About how many pixels a picture is drawn wide; small ones are enlarged by a whole number.
        classes: The names of the classes, where they have any.
    """
    codes = codes.to("cpu")
    images = magnified(images.float().cpu().clamp(-1, 1), width)
    panels = [images]
    if spec.gridded:
        panels.append(draw_coding_map(images, codes.require_grains(), spec))
    below = [pad(panel, (0, 0, 0, _CAPTION), value=1.0) for panel in panels]
    # make_grid leaves a single picture without a border
    border = _BORDER if len(images) > 1 else 0
    grids = [make_grid(panel, nrow=columns, padding=_BORDER, pad_value=1.0) for panel in below]
    drawn = to_picture(to_bytes(torch.cat(grids, dim=2)))
    draw = ImageDraw.Draw(drawn)
    height, width = images.shape[2:]
    names = codes.texts or ("",) * len(images)
    if codes.labels is not None:
        names = tuple(f"class {label}" if classes is None else classes[label] for label in codes.labels.tolist())
    for place, (name, length) in enumerate(zip(names, codes.lengths.tolist(), strict=True)):
        row, column = divmod(place, columns)
        x = border + column * (width + border) + width // 2
        y = border + row * (height + _CAPTION + border) + height + 2
        text = f"{' '.join(name.split())}, {length} codes" if name else f"{length} codes"
        draw.text((x, y), _fitting(text, width, _font(12)), _INK, _font(12), anchor="ma")
    if not spec.gridded:
        return drawn
    return _with_legend(drawn, _granularities(spec), (2 * _BORDER, drawn.height + _BORDER), below=20)


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """A caption of a name and a number, of whose name as much is left as fits."""
    name, comma, number = text.rpartition(", ")
    while len(name) > 1 and font.getlength(f"{name}…{comma}{number}") > width:
        name = name[:-1]
    return text if f"{name}{comma}{number}" == text else f"{name}…{comma}{number}"


def _lay_out(rows: dict[str, Tensor], captions: list[tuple[str, str]], spec: CodeSpec) -> Image.Image:
    count, _, height, width = next(iter(rows.values())).shape
    gap, line, font = 6, 20, _font(14)
    left = max(int(font.getlength(name)) for name in rows) + 3 * gap
    captions_top = gap + len(rows) * (height + gap)
    bottom = captions_top + 2 * line + 2 * gap
    sheet = Image.new("RGB", (left + count * (width + gap), bottom), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        top = gap + row * (height + gap)
        draw.text((left - 2 * gap, top + height // 2), name, _INK, font, anchor="rm")
        for column, picture in enumerate(to_bytes(pictures)):
            sheet.paste(to_picture(picture), (left + column * (width + gap), top))
    for column, lines in enumerate(captions):
        center = left + column * (width + gap) + width // 2
        for number, text in enumerate(lines):
            draw.text((center, captions_top + number * line), text, _INK, font, anchor="ma")
    errors = (_levels(error_colors()[::3]), f"l1 error from 0 to {_LARGEST_ERROR:g} (pixels in [-1, 1])")
    return _with_legend(sheet, [*_granularities(spec), errors], (left, bottom), below=line + gap)


def _granularities(spec: CodeSpec) -> list[_Entry]:
    colors = _levels(granularity_colors(spec.granularities))
    return [
        ([color] * 14, f"factor {factor}: {codes} code{'s' if codes > 1 else ''} a region")
        for color, factor, codes in zip(colors, spec.factors, spec.codes_per_region, strict=True)
    ]


def _with_legend(sheet: Image.Image, entries: Sequence[_Entry], start: tuple[int, int], below: int) -> Image.Image:
    """A sheet, at least as wide as a legend needs, with the legend from `start` on and so many pixels below it."""
    right = max(sheet.width, _NARROWEST)
    x, y = start
    placed: list[tuple[int, int, _Entry]] = []
    for entry in entries:
        width = len(entry[0]) + 6 + int(_font(13).getlength(entry[1]))
        if placed and x + width > right:
            x, y = start[0], y + 22
        placed.append((x, y, entry))
        x += width + 24
    whole = Image.new("RGB", (right, y + below), _PAPER)
    whole.paste(sheet)
    draw = ImageDraw.Draw(whole)
    for x, y, (colors, text) in placed:
        for offset, color in enumerate(colors):
            draw.line((x + offset, y, x + offset, y + 13), tuple(color))
        draw.text((x + len(colors) + 6, y + 7), text, _FAINT, _font(13), anchor="lm")
    return whole


def _levels(colors: Tensor) -> list[list[int]]:
    return (colors * 255).round().int().tolist()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib carries this font, so that a figure looks the same on every machine
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)  # Pillow 10.1 takes no path
