"""The grid of reconstructions, by its pixels."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from vltok.codes import Codes, CodeSpec
from vltok.figures.coding_maps import draw_coding_map, error_map, granularity_colors
from vltok.figures.grids import reconstruction_grid, sample_grid
from vltok.measures.pixels import to_bytes

SPEC = CodeSpec(16, (8, 4))


def crops(count: int = 3, size: int = 32) -> torch.Tensor:
    photograph = torch.from_numpy(skimage.data.coffee().copy()).movedim(-1, 0) / 127.5 - 1
    return torch.stack([photograph[:, 100:, 60 * n :][:, :size, :size] for n in range(count)])


def gridded(images: torch.Tensor) -> Codes:
    grains = torch.arange(len(images) * 16).view(-1, 4, 4) % 3 % 2
    return Codes.from_code_map(torch.zeros(len(images), 8, 8, dtype=torch.long), grains, SPEC)


def find(sheet: Image.Image, picture: torch.Tensor) -> list[tuple[int, int]]:
    """Where a picture stands in the sheet, pixel by pixel."""
    whole = torch.from_numpy(np.asarray(sheet).copy()).movedim(-1, 0)
    wanted = to_bytes(picture)
    corner = (whole == wanted[:, :1, :1]).all(0).nonzero().tolist()
    height, width = wanted.shape[1:]
    return [(y, x) for y, x in corner if torch.equal(whole[:, y : y + height, x : x + width], wanted)]


def test_the_error_at_fixed_length_stands_above_the_own() -> None:
    images = crops()
    codes, decoded, fixed = gridded(images), images * 0.9, images * 0.5
    sheet = reconstruction_grid(images, decoded, codes, SPEC, width=32, fixed=fixed)
    places = [find(sheet, error_map(each, images, 8, largest=0.3)[0]) for each in (fixed, decoded)]
    assert [len(found) for found in places] == [1, 1] and places[0][0] < places[1][0]
    without = reconstruction_grid(images, decoded, codes, SPEC, width=32)
    assert without.height == sheet.height - 32 - 6


def test_every_picture_stands_in_its_row_and_column() -> None:
    images = crops()
    blurred = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    codes = gridded(images)
    sheet = reconstruction_grid(images, blurred, codes, SPEC, width=64)
    twice = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    maps = draw_coding_map(twice, codes.require_grains(), SPEC)
    places = [
        [find(sheet, picture) for picture in row]
        for row in (twice, blurred.repeat_interleave(2, 2).repeat_interleave(2, 3), maps)
    ]
    assert all(len(found) == 1 for row in places for found in row)
    tops = [{found[0][0] for found in row} for row in places]
    assert all(len(top) == 1 for top in tops) and sorted(tops, key=min) == tops
    lefts = [[found[0][1] for found in row] for row in places]
    assert lefts[0] == lefts[1] == lefts[2] == sorted(set(lefts[0]))


def test_the_map_and_the_pictures_tell_reconstructions_apart() -> None:
    images, codes = crops(), gridded(crops())
    sheets = [reconstruction_grid(images, images + shift, codes, SPEC) for shift in (0.0, 0.2)]
    assert sheets[0].size == sheets[1].size
    assert sheets[0].tobytes() != sheets[1].tobytes()


@pytest.mark.parametrize("factors", [(8,), (16, 8, 4), (32, 16, 8, 4)])
@pytest.mark.parametrize("count", [1, 5])
def test_the_legend_fits_whatever_the_number_of_granularities(factors: tuple[int, ...], count: int) -> None:
    spec = CodeSpec(16, factors)
    images = crops(count)
    regions = 32 // factors[0]
    grains = torch.full((count, regions, regions), len(factors) - 1)
    finest = 32 // factors[-1]
    codes = Codes.from_code_map(torch.zeros(count, finest, finest, dtype=torch.long), grains, spec)
    sheet = np.asarray(reconstruction_grid(images, images, codes, spec, width=96))
    # nothing is cut off: the margin on the right and the one below are paper
    assert (sheet[:, -1] == 255).all() and (sheet[-1] == 255).all()


def test_a_tokenizer_without_a_grid_has_no_coding_map() -> None:
    images = crops(2)
    codes = Codes(torch.zeros(5, dtype=torch.long), torch.tensor([2, 3]))
    without = reconstruction_grid(images, images, codes, CodeSpec(16, max_length=4), width=64)
    assert without.height < reconstruction_grid(images, images, gridded(images), SPEC, width=64).height


def test_large_pictures_are_not_enlarged() -> None:
    images = crops(1, 256)
    spec = CodeSpec(16, (16, 8))
    codes = Codes.from_code_map(
        torch.zeros(1, 32, 32, dtype=torch.long), torch.zeros(1, 16, 16, dtype=torch.long), spec
    )
    assert find(reconstruction_grid(images, images * 0.5, codes, spec), images[0])


def test_drawn_pictures_tell_their_class_and_code_count() -> None:
    grains = torch.tensor([[[0, 0], [0, 0]], [[1, 0], [0, 0]]])
    codes = Codes(torch.zeros(11, dtype=torch.long), torch.tensor([4, 7]), grains, torch.tensor([3, 5]))
    images = torch.zeros(2, 3, 16, 16)
    with_classes = np.asarray(sample_grid(images, codes, SPEC, columns=2, width=64))
    without = np.asarray(sample_grid(images, replace(codes, labels=None), SPEC, columns=2, width=64))
    # two panels of two pictures of 64 pixels, each with a line below, and the legend
    assert with_classes.shape == (4 + 64 + 18 + 4 + 4 + 20, 480, 3)
    assert (with_classes[68:90] < 100).any() and (without[68:90] < 100).any() and (with_classes != without).any()
    assert (with_classes[:68] == without[:68]).all(), "the captions lie below the pictures"
    for color in (granularity_colors(2) * 255).round().numpy():
        assert (with_classes[90:] == color).all(axis=2).any(), "the legend has each colour of the maps"
    alone = np.asarray(sample_grid(images[:1], codes[0], SPEC, columns=2, width=64))
    assert alone.shape == (64 + 18 + 4 + 20, 480, 3) and (alone[66:82] < 100).any()


def test_drawn_pictures_tell_the_name_of_their_class() -> None:
    codes = Codes(torch.zeros(8, dtype=torch.long), torch.tensor([4, 4]), None, torch.tensor([0, 1]))
    images, spec = torch.zeros(2, 3, 16, 16), CodeSpec(16, ())
    sheets = [
        np.asarray(sample_grid(images, codes, spec, columns=2, width=96, classes=classes))
        for classes in (None, ["cat", "a name that is wider than its picture"])
    ]
    assert sheets[0].shape == sheets[1].shape == (4 + 96 + 18 + 4, 4 + 2 * 100, 3), "without a grid there is no legend"
    # a long name is cut, so that it stays below its picture
    assert (sheets[1][100:, 102:106] == 255).all() and (sheets[1][100:] != sheets[0][100:]).any()
