"""How a draw unfolds code by code, as an animation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.figures.coding_maps import draw_coding_map, enlarged, magnified
from vltok.files import written_whole
from vltok.measures.pixels import to_bytes, to_picture, to_unit_range

_WIDTH = 256
_MILLISECONDS, _LAST_MILLISECONDS = 120, 2000


def unfolding_frames(
    pixels: UInt8[Tensor, "3 H W"], codes: Codes, order: Int[Tensor, " t"], spec: CodeSpec, frames: int = 24
) -> UInt8[Tensor, "f 3 H W"]:
    """The picture as code after code is drawn: grey where there is none yet.

    Args:
        pixels: What the codes decode to, in any enlargement.
        codes: A batch of one.
        order: When each of them is drawn, counted from 0.
        spec: Of the codes, which lie on a grid.
        frames: How many, of which the last is whole.

    Raises:
        UserError: The codes lie on no grid.
    """
    # the step of each code, laid where the code lies
    steps = replace(codes, ids=order).to_code_map(spec)
    drawn = torch.linspace(0, len(order), frames + 1)[1:].round()
    there = steps < drawn[:, None, None]
    return torch.where(enlarged(there, pixels.shape[1:])[:, None], pixels, torch.full_like(pixels, 128))


def save_unfolding(
    pixels: UInt8[Tensor, "3 H W"], codes: Codes, order: Int[Tensor, " t"], spec: CodeSpec, path: Path
) -> None:
    """Write an animated GIF of one draw: the picture at the left, its coding map at the right.

    Args as those of `unfolding_frames`; the path ends in ``.gif``.
    """
    beneath = magnified(pixels, _WIDTH)
    coding_map = to_bytes(draw_coding_map(to_unit_range(beneath)[None], codes.require_grains(), spec)[0])
    sides = [unfolding_frames(side, codes, order, spec) for side in (beneath, coding_map)]
    pictures: list[Image.Image] = [to_picture(frame) for frame in torch.cat(sides, dim=3)]
    durations = [_MILLISECONDS] * (len(pictures) - 1) + [_LAST_MILLISECONDS]
    with written_whole(path) as file:
        pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
