"""The animation of a draw: what is shown is what has been drawn so far."""

from dataclasses import replace
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.figures.unfolding import save_unfolding, unfolding_frames
from vltok.priors.orderings import RasterOrder

SPEC = CodeSpec(codebook_size=9, factors=(4, 8))


@pytest.fixture
def drawn() -> tuple[torch.Tensor, Codes]:
    """A photograph of 2 x 2 regions, of which the first and the last are coarse: 1 + 1 + 4 + 4 codes."""
    pixels = torch.from_numpy(skimage.data.chelsea()[100:116, 150:166].copy()).movedim(-1, 0)
    grains = torch.tensor([[[0, 1], [1, 0]]])
    return pixels, Codes.from_code_map(torch.zeros(1, 4, 4, dtype=torch.long), grains, SPEC)


def test_coarse_regions_come_first(drawn) -> None:
    pixels, codes = drawn
    frames = unfolding_frames(pixels, codes, torch.arange(10), SPEC, frames=10)
    assert torch.equal(frames[-1], pixels)
    for frame, code in zip(frames[:2], ((0, 0), (8, 8)), strict=True):
        down, across = code
        assert torch.equal(
            frame[:, down : down + 8, across : across + 8], pixels[:, down : down + 8, across : across + 8]
        )
    assert (frames[1][:, :8, 8:] == 128).all() and (frames[1][:, 8:, :8] == 128).all()
    # then one fine code after another
    assert torch.equal(frames[2][:, :4, 8:12], pixels[:, :4, 8:12]) and (frames[2][:, :4, 12:] == 128).all()
    shown = (frames != 128).any(dim=1).flatten(1).sum(dim=1)
    assert (shown.diff() > 0).all()


def test_the_order_is_that_of_the_draw(drawn) -> None:
    pixels, codes = drawn
    spec = replace(SPEC, regions=(2, 2))
    frames = unfolding_frames(pixels, codes, RasterOrder(spec).steps(codes), spec, frames=10)
    # the second region is done before the last one, which is coarse, has begun
    assert torch.equal(frames[4][:, :8], pixels[:, :8])
    assert (frames[4][:, 8:] == 128).all() and torch.equal(frames[-1], pixels)


def test_the_animation(drawn, tmp_path: Path) -> None:
    pixels, codes = drawn
    save_unfolding(pixels, codes, torch.arange(10), SPEC, tmp_path / "draw.gif")
    with Image.open(tmp_path / "draw.gif") as picture:
        assert picture.size == (512, 256) and picture.n_frames > 5
        assert picture.info["loop"] == 0


def test_codes_without_a_grid(drawn) -> None:
    codes = Codes(torch.zeros(4, dtype=torch.long), torch.tensor([4]))
    with pytest.raises(UserError, match="no grid"):
        unfolding_frames(drawn[0], codes, torch.arange(4), CodeSpec(codebook_size=9))
