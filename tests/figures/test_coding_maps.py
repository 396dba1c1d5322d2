"""Coding maps and error maps, by their pixels."""

import math

import pytest
import skimage.data
import torch
from skimage.color import rgb2lab

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.figures.coding_maps import (
    draw_coding_map,
    draw_picture_coding_map,
    error_colors,
    error_map,
    granularity_colors,
)
from vltok.measures.pixels import to_bytes
from vltok.pictures.transforms import to_unit_range


@pytest.mark.parametrize("granularities", [2, 3, 4])
def test_colors_go_from_blue_to_red_and_differ(granularities: int) -> None:
    colors = granularity_colors(granularities)
    assert colors[0, 2] > colors[0, 0] and colors[-1, 0] > colors[-1, 2]
    # in CIELAB, 10 is a difference seen at a glance
    lab = torch.from_numpy(rgb2lab(colors.numpy()))
    assert torch.pdist(lab).min() > 25


def test_one_granularity_has_a_color_and_none_has_none() -> None:
    assert granularity_colors(1).shape == (1, 3)
    assert granularity_colors(0).shape == (0, 3)


def tinted(grains: torch.Tensor, spec: CodeSpec, size: int = 32) -> torch.Tensor:
    return draw_coding_map(torch.zeros(1, 3, size, size), grains, spec)[0]


def test_each_region_takes_its_tint() -> None:
    spec = CodeSpec(8, (16, 8))
    drawn = tinted(torch.tensor([[[0, 1], [1, 0]]]), spec)
    tints = granularity_colors(2) * 2 - 1
    for (row, column), granularity in {(4, 4): 0, (4, 20): 1, (20, 4): 1, (20, 20): 0}.items():
        # over mid-grey, the tint is the colour at less strength
        assert torch.allclose(drawn[:, row, column], 0.45 * tints[granularity], atol=1e-6)


def test_lines_show_one_cell_for_each_code() -> None:
    spec = CodeSpec(8, (16, 4))
    drawn = tinted(torch.tensor([[[0, 1], [0, 0]]]), spec)
    dark = drawn.sum(0)
    assert (dark[5, :16] < dark[5, 5]).nonzero().flatten().tolist() == [0], "one code: one cell"
    assert (dark[5, 16:] < dark[5, 17]).nonzero().flatten().tolist() == [0, 4, 8, 12], "16 codes: four cells a side"
    assert (dark[:16, 18] < dark[5, 18]).nonzero().flatten().tolist() == [0, 4, 8, 12]


def test_cells_too_small_for_lines_have_none() -> None:
    drawn = tinted(torch.ones(1, 16, 16, dtype=torch.long), CodeSpec(8, (2, 1)))
    assert (drawn == drawn[:, :1, :1]).all()


def test_the_picture_shows_beneath() -> None:
    photograph = torch.from_numpy(skimage.data.astronaut()[:256, 100:356].copy()).movedim(-1, 0)[None] / 127.5 - 1
    drawn = draw_coding_map(photograph, torch.zeros(1, 16, 16, dtype=torch.long), CodeSpec(8, (16,)))
    assert drawn.shape == photograph.shape and drawn.min() >= -1 and drawn.max() <= 1
    both = torch.stack([photograph.mean(1).flatten(), drawn.mean(1).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.85


def test_regions_must_divide_the_picture() -> None:
    with pytest.raises(UserError, match="3 x 2 regions does not divide images of 32 x 32"):
        tinted(torch.zeros(1, 3, 2, dtype=torch.long), CodeSpec(8, (16, 8)))


def test_error_map_of_pixels_and_of_regions() -> None:
    images = torch.zeros(1, 3, 4, 8)
    reconstructions = images.clone()
    reconstructions[0, :, 0, 0] = 0.3
    reconstructions[0, :, :, 4:] = -0.1
    colors = error_colors() * 2 - 1
    pixels = error_map(reconstructions, images, largest=0.3)
    assert torch.equal(pixels[0, :, 0, 0], colors[255])
    assert torch.equal(pixels[0, :, 3, 3], colors[0])
    assert torch.equal(pixels[0, :, 2, 6], colors[85])
    regions = error_map(reconstructions, images, region=4, largest=0.3)
    assert (regions[0, :, :, :4] == colors[16][:, None, None]).all(), "0.3 in one of 16 pixels"
    assert (regions[0, :, :, 4:] == colors[85][:, None, None]).all()


def test_errors_beyond_the_largest_stay_in_the_colors() -> None:
    worst = error_map(torch.full((1, 3, 4, 4), 9.0), torch.full((1, 3, 4, 4), -1.0), region=2)
    assert torch.allclose(worst[0, :, 0, 0], error_colors()[255] * 2 - 1)


def test_what_is_no_number_gets_the_color_of_the_largest_error() -> None:
    images = torch.zeros(1, 3, 8, 8)
    drawn = error_map(torch.full_like(images, torch.nan), images)
    assert torch.equal(drawn, error_map(images + 0.9, images))


def test_error_regions_must_divide_the_picture() -> None:
    with pytest.raises(UserError, match="do not divide"):
        error_map(torch.zeros(1, 3, 6, 8), torch.zeros(1, 3, 6, 8), region=4)


@pytest.mark.parametrize(("height", "width"), [(40, 24), (33, 17), (1, 1)])
def test_the_map_of_a_picture_is_that_of_its_padded_whole(height: int, width: int) -> None:
    spec = CodeSpec(8, (16, 8))
    picture = torch.randint(256, (3, height, width), dtype=torch.uint8)
    grains = torch.randint(2, (math.ceil(height / 16), math.ceil(width / 16)))
    padded = torch.zeros(1, 3, 16 * grains.shape[0], 16 * grains.shape[1])
    padded[0, :, :height, :width] = to_unit_range(picture)
    whole = to_bytes(draw_coding_map(padded, grains[None], spec))[0, :, :height, :width]
    assert torch.equal(draw_picture_coding_map(picture, grains, spec), whole)
