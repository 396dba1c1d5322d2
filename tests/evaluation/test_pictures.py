"""Pictures of any size through a tokenizer, on one whose pictures and codes are known."""

import math

import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.evaluation.pictures import code_picture, picture_figures
from vltok.interfaces import FixedSize, Tokenizer, TokenizerOutput


class Mirror(Tokenizer):
    """Gives every picture back as it came; a region that is bright on average is fine. Without a grid, one code."""

    def __init__(self, value: float = 1.0, gridded: bool = True) -> None:
        super().__init__()
        self.gridded = gridded
        self.value = nn.Parameter(torch.tensor(value))
        self.sizes: list[tuple[int, int]] = []

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(16, (8, 4)) if self.gridded else CodeSpec(16, max_length=4)

    @property
    def divisor(self) -> int:
        return 8

    def encode_batch(self, images: Tensor) -> Codes:
        self.images = images
        self.sizes.append(tuple(images.shape[2:]))
        if not self.gridded:
            return Codes(torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long))
        grains = (nn.functional.avg_pool2d(images.mean(1), 8) > 0).long()
        cells = torch.zeros(1, 2 * grains.shape[1], 2 * grains.shape[2], dtype=torch.long)
        return Codes.from_code_map(cells, grains, self.spec)

    def decode_batch(self, codes: Codes) -> Tensor:
        return self.images * self.value

    def forward(self, images: Tensor) -> TokenizerOutput:
        codes = self.encode(images)
        return TokenizerOutput(self.decode(codes), codes, {})


class FixedMirror(Mirror, FixedSize):
    """The same without a grid, for images of one size."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__(gridded=False)
        self.only = height, width

    @property
    def image_size(self) -> tuple[int, int]:
        return self.only


def noise(height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 80))
def test_any_size_comes_back_whatever_the_tile(height: int, width: int, tile: int) -> None:
    tokenizer, picture = Mirror(), noise(height, width)
    coded = code_picture(tokenizer, picture, tile)
    assert torch.equal(coded.reconstruction, picture)
    whole = code_picture(Mirror(), picture, 1000)
    assert torch.equal(coded.grains, whole.grains) and coded.length == whole.length
    assert coded.grains.shape == (math.ceil(height / 8), math.ceil(width / 8))
    assert max(max(size) for size in tokenizer.sizes) <= math.ceil(tile / 8) * 8


def test_tiles_are_of_about_equal_size() -> None:
    tokenizer = Mirror()
    code_picture(tokenizer, noise(8, 264), 128)
    assert tokenizer.sizes == [(8, 88)] * 3


def test_every_tile_has_the_one_size_that_the_tokenizer_takes() -> None:
    tokenizer, picture = FixedMirror(8, 16), noise(20, 30)
    coded = code_picture(tokenizer, picture, tile=1024)
    assert set(tokenizer.sizes) == {(8, 16)} and coded.length == len(tokenizer.sizes) == 3 * 2
    assert coded.reconstruction.equal(picture) and coded.grains is None


def test_what_is_added_is_a_reflection() -> None:
    tokenizer = Mirror()
    picture = torch.arange(5, dtype=torch.uint8).expand(3, 8, 5).contiguous()
    code_picture(tokenizer, picture, 64)
    assert ((tokenizer.images[0, 0, 0] + 1) * 127.5).round().tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


def test_a_single_pixel_is_repeated() -> None:
    tokenizer, picture = Mirror(), noise(1, 1)
    assert torch.equal(code_picture(tokenizer, picture, 64).reconstruction, picture)
    assert (tokenizer.images == tokenizer.images[..., :1, :1]).all()


def test_figures_of_a_picture() -> None:
    picture = torch.zeros(3, 16, 24, dtype=torch.uint8)
    picture[:, :8, :8] = 255  # one of six regions is fine
    figures = picture_figures(picture, code_picture(Mirror(), picture, 64), Mirror().spec)
    assert (figures.width, figures.height) == (24, 16)
    assert figures.code_length == 4 + 5
    assert figures.bits == 9 * 4 + 6
    assert figures.ratios == pytest.approx({8: 5 / 6, 4: 1 / 6})


def test_psnr_is_of_the_picture_without_what_was_added() -> None:
    picture = torch.from_numpy(skimage.data.chelsea()[:21, :35].copy()).movedim(-1, 0)
    coded = code_picture(Mirror(0.9), picture, 64)
    error = (coded.reconstruction.double() - picture.double()).square().mean().item()
    figures = picture_figures(picture, coded, Mirror().spec)
    assert figures.psnr == pytest.approx(10 * math.log10(255**2 / error), abs=1e-4)


def test_a_tokenizer_that_gives_no_numbers() -> None:
    with pytest.raises(UserError, match="NaN or infinite pixels"):
        code_picture(Mirror(math.nan), noise(8, 8), 64)
