"""Coding maps and error maps: where the codes went, and where the error stayed (Figure 5)."""

from collections.abc import Sequence

import matplotlib
import torch
from einops import repeat
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import pad

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.measures.pixels import to_bytes, to_unit_range
from vltok.measures.regions import luminance, split_regions

_BAND_PIXELS = 2**20


def granularity_colors(granularities: int) -> Float[Tensor, "k 3"]:
    """The colour of each granularity, from few codes (blue) to many (red), as in Figure 5; RGB in [0, 1]."""
    # the very ends of the colormap are too dark to see a picture through
    places = torch.linspace(0.08, 0.92, granularities).numpy()
    # told apart with every common kind of colour blindness
    return torch.tensor(matplotlib.colormaps["RdYlBu_r"](places)[:, :3], dtype=torch.float32)


def draw_coding_map(
    images: Float[Tensor, "b 3 H W"], grains: Int[Tensor, "b h w"], spec: CodeSpec
) -> Float[Tensor, "b 3 H W"]:
    """Tint each region by its granularity, and draw the grid of codes over it: one cell for each code.

    Args:
        images: The pictures beneath, in [-1, 1], in any enlargement: a region has H/h × W/w pixels.
        grains: The granularity of each region.
        spec: The tokenizer's `spec`, which says into how many codes a region of each granularity divides.

    Returns:
        The pictures in [-1, 1].

    Raises:
        UserError: The regions do not divide the images.
    """
    height, width = images.shape[2:]
    down, across = grains.shape[1:]
    if height % down or width % across:
        raise UserError(f"a grain map of {down} x {across} regions does not divide images of {height} x {width} pixels")
    # The picture turns grey beneath the tint, so that its own colours are not mistaken for it.
    grey = (luminance(images.float()).clamp(-1, 1) + 1) / 2
    tint = granularity_colors(spec.granularities).to(images.device)[grains].movedim(-1, 1)
    drawn = torch.lerp(grey[:, None], enlarged(tint, (height, width)), 0.45)
    lines = 1 - 0.45 * _edges(grains, (height, width), spec).to(drawn.dtype)
    return (drawn * lines[:, None]) * 2 - 1


def error_map(
    reconstructions: Float[Tensor, "b 3 H W"],
    images: Float[Tensor, "b 3 H W"],
    region: int | None = None,
    largest: float = 0.4,
) -> Float[Tensor, "b 3 H W"]:
    """The mean absolute (l1) error over the channels, of each pixel or of each region, in colours.

    Args:
        reconstructions: The reconstructed images.
        images: The images, in [-1, 1].
        region: The side in pixels of the squares over which the error is averaged; None draws that of each pixel.
        largest: The error, of at most 2, that gets the brightest colour.

    Returns:
        The map in [-1, 1].

    Raises:
        UserError: A side of the images is no multiple of `region`.
    """
    error = (reconstructions.float().clamp(-1, 1) - images.float()).abs().mean(dim=1)
    if region is not None:
        error = enlarged(split_regions(error, region).mean(dim=3), error.shape[1:])
    # where a reconstruction is no number, it could not be more wrong
    places = ((error.nan_to_num(nan=largest) / largest).clamp(0, 1) * 255).round().long()
    return error_colors().to(images.device)[places].movedim(-1, 1) * 2 - 1


def error_colors() -> Float[Tensor, "256 3"]:
    """The colours of errors from 0 (black) to the largest (pale yellow), even in brightness, as RGB in [0, 1]."""
    return torch.tensor(matplotlib.colormaps["inferno"](range(256))[:, :3], dtype=torch.float32)


def draw_picture_coding_map(
    picture: UInt8[Tensor, "3 H W"], grains: Int[Tensor, "h w"], spec: CodeSpec
) -> UInt8[Tensor, "3 H W"]:
    """The coding map of one picture of any size, drawn band by band so that a big one takes little memory.

    Args:
        picture: Its pixels.
        grains: The granularity of each of its regions; those on the right and below may reach beyond the picture.
        spec: The tokenizer's `spec`.
    """
    region, width = spec.factors[0], picture.shape[2]
    beside = grains.shape[1] * region - width
    regions = max(1, _BAND_PIXELS // (width * region))
    drawn = torch.empty_like(picture)
    for first in range(0, grains.shape[0], regions):
        band = grains[first : first + regions]
        rows = slice(first * region, (first + len(band)) * region)
        pixels = picture[:, rows]
        below = len(band) * region - pixels.shape[1]
        mapped = draw_coding_map(pad(to_unit_range(pixels)[None], (0, beside, 0, below)), band[None], spec)
        drawn[:, rows] = to_bytes(mapped[0, :, : pixels.shape[1], :width])
    return drawn


def enlarged(grid: Shaped[Tensor, "*b h w"], size: Sequence[int]) -> Shaped[Tensor, "*b H W"]:
    """Each cell replicated, so that the grid has a size `(H, W)`, a multiple of its own."""
    down, across = (whole // cells for whole, cells in zip(size, grid.shape[-2:], strict=True))
    return repeat(grid, "... h w -> ... (h down) (w across)", down=down, across=across)


def magnified(pictures: Shaped[Tensor, "*b h w"], width: int) -> Shaped[Tensor, "*b H W"]:
    """Pictures enlarged by a whole number, to about `width` pixels; wider ones as they are."""
    scale = max(1, round(width / pictures.shape[-1]))
    return enlarged(pictures, [scale * side for side in pictures.shape[-2:]])


def _edges(grains: Tensor, size: tuple[int, int], spec: CodeSpec) -> Tensor:
    """The pixels `[b H W]` on the upper and left side of a code's cell."""
    region = (size[0] // grains.shape[1], size[1] // grains.shape[2])
    rows, columns = (torch.arange(side, device=grains.device) for side in size)
    edges = torch.zeros(len(grains), *size, dtype=torch.bool, device=grains.device)
    for granularity, side in enumerate(spec.sides):
        # a line through cells of a few pixels would leave nothing of them
        if min(region) < 4 * side:
            continue
        on_row, on_column = rows * side % region[0] < side, columns * side % region[1] < side
        edges |= enlarged(grains == granularity, size) & (on_row[:, None] | on_column)
    return edges
