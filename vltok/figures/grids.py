"""Grids of pictures with rows that are named: what a tokenizer made of its images, at one look."""

from functools import cache
from pathlib import Path

import matplotlib
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.evaluation.pixels import psnr, to_bytes
from vltok.figures.coding_maps import draw_coding_map, error_colors, error_map, granularity_colors

_INK, _FAINT, _PAPER = (32, 32, 32), (110, 110, 110), (255, 255, 255)
_LARGEST_ERROR = 0.4


def reconstruction_grid(
    images: Float[Tensor, "b 3 H W"],
    reconstructions: Float[Tensor, "b 3 H W"],
    codes: Codes,
    spec: CodeSpec,
    width: int = 160,
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

    Returns:
        An RGB picture; `numpy.asarray` of it is what TensorBoard's `add_image(..., dataformats="HWC")` takes.
    """
    images, reconstructions, codes = images.float().cpu(), reconstructions.float().cpu(), codes.to("cpu")
    scale = max(1, round(width / images.shape[3]))
    beneath = _enlarge(images, scale)  # the map's lines stay thin when they are drawn on the enlarged pictures
    errors = error_map(reconstructions, images, spec.factors[0] if spec.gridded else None, largest=_LARGEST_ERROR)
    rows = {"input": beneath, "reconstruction": _enlarge(reconstructions, scale)}
    if spec.gridded:
        rows["coding map"] = draw_coding_map(beneath, codes.require_grains(), spec)
    rows["error map"] = _enlarge(errors, scale)
    ratios, lengths = psnr(reconstructions, images).tolist(), codes.lengths.tolist()
    captions = [(f"{ratio:.1f} dB", f"{length} codes") for ratio, length in zip(ratios, lengths, strict=True)]
    return _lay_out(rows, captions, spec)


def _enlarge(images: Tensor, scale: int) -> Tensor:
    return images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)


def _lay_out(rows: dict[str, Tensor], captions: list[tuple[str, str]], spec: CodeSpec) -> Image.Image:
    count, _, height, width = next(iter(rows.values())).shape
    gap, line, size = 6, 20, 14
    left = max(int(_font(size).getlength(name)) for name in rows) + 3 * gap
    bottom = gap + len(rows) * (height + gap)
    legend = bottom + line * 2 + 2 * gap
    sheet = Image.new("RGB", (max(left + count * (width + gap), 640), legend + 2 * line), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        top = gap + row * (height + gap)
        draw.text((left - 2 * gap, top + height // 2), name, _INK, _font(size), anchor="rm")
        for column, picture in enumerate(to_bytes(pictures)):
            sheet.paste(Image.fromarray(picture.movedim(0, -1).numpy()), (left + column * (width + gap), top))
    for column, (first, second) in enumerate(captions):
        center = left + column * (width + gap) + width // 2
        draw.text((center, bottom), first, _INK, _font(size), anchor="ma")
        draw.text((center, bottom + line), second, _INK, _font(size), anchor="ma")
    _draw_legend(draw, left, legend, spec)
    return sheet


def _draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int, spec: CodeSpec) -> None:
    size, box = 13, 14
    font = _font(size)
    for color, factor, codes in zip(
        granularity_colors(spec.granularities), spec.factors, spec.codes_per_region, strict=True
    ):
        draw.rectangle((left, top, left + box, top + box), tuple((color * 255).round().int().tolist()))
        text = f"factor {factor}: {codes} code{'s' if codes > 1 else ''} a region"
        draw.text((left + box + 6, top + box / 2), text, _FAINT, font, anchor="lm")
        left += box + 6 + int(font.getlength(text)) + 24
    draw.text((left, top + box / 2), "l1 error  0", _FAINT, font, anchor="lm")
    left += int(font.getlength("l1 error  0")) + 6
    for place, color in enumerate(error_colors()[::2]):
        draw.line((left + place, top, left + place, top + box), tuple((color * 255).round().int().tolist()))
    draw.text((left + 134, top + box / 2), f"{_LARGEST_ERROR:g} of 2", _FAINT, font, anchor="lm")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib carries this font, so that a figure looks the same on every machine
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
