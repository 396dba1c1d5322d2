"""What a mask keeps of a picture, for a prior that draws the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from PIL import Image

from vltok.drawing.keeping import Kept
from vltok.errors import UserError
from vltok.interfaces import Prior, Tokenizer
from vltok.nn.precision import computing
from vltok.pictures.single import load_image
from vltok.verbs.inputs import Opened


def kept_of(
    keep: Sequence[str | os.PathLike | Image.Image],
    prior: Prior,
    tokenizer: Opened[Tokenizer],
    regions: tuple[int, int] | None = None,
) -> Kept:
    """The codes of the regions of which a mask keeps every pixel.

    Args:
        keep: A mask, white where the picture stays, and the picture. They become as large as what is drawn: the
            shorter side is resized, and the middle taken.
        prior: The one that shall draw the rest.
        tokenizer: Encodes the picture.
        regions: How many the prior shall draw, where it draws any; None for as many as the picture has.

    Raises:
        UserError: They are no two pictures of one size, or the prior's codes lie on no grid, or no region stays.
    """
    if len(keep) != 2:
        raise UserError(f"--keep takes a mask and a picture, as in --keep MASK.png PHOTO.jpg, not {len(keep)} of them")
    if not prior.spec.gridded:
        raise UserError("--keep: the prior's codes lie on no grid, so that no part of a picture has codes of its own")
    factor = prior.spec.factors[0]
    mask, picture = (load_image(each) for each in keep)
    if mask.shape != picture.shape:
        sizes = " and ".join(f"{each.shape[2]} × {each.shape[1]}" for each in (mask, picture))
        raise UserError(f"--keep: mask and picture must be of one size, but have {sizes} pixels")
    rows, columns = regions or prior.spec.regions or (max(side // factor, 1) for side in picture.shape[1:])
    size = rows * factor, columns * factor
    if picture.shape[1:] != size:
        if prior.spec.any_grid and regions is None:
            raise UserError(
                f"--keep: the picture has {picture.shape[2]} × {picture.shape[1]} pixels, which must be multiples of "
                f"{factor}: give a size that is, such as --size {size[0]}x{size[1]} (height x width)"
            )
        if rows != columns:
            raise UserError(f"--keep: the picture must have the prior's {size[1]} × {size[0]} pixels")
        mask, picture = (load_image(each, size=size[0]) for each in keep)
    # rows of a region and columns of a region
    stays = (mask.mean(0) > 0).unflatten(1, (columns, factor)).unflatten(0, (rows, factor)).all(3).all(1)
    if not stays.any():
        raise UserError(
            f"--keep: the mask, which is white where the picture stays, is white all over in no region of {factor} × "
            f"{factor} pixels"
        )
    with torch.inference_mode(), computing(tokenizer.device):
        codes = tokenizer.model.encode(picture[None].to(tokenizer.device))
    return Kept.regions(codes.to("cpu"), stays)
