"""`vltok.reconstruct` as a notebook calls it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

from tests.cli.exports import write_bundle
from vltok.errors import UserError
from vltok.evaluation.pictures import CodedPicture, picture_figures
from vltok.interfaces import Tokenizer
from vltok.measures.pixels import psnr
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import EntropyGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer
from vltok.verbs.reconstruct import Reconstruction, reconstruct


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return write_bundle(tmp_path_factory.mktemp("tokenizer") / "bundle")


def test_pixels_of_every_form_come_back(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = skimage.data.coffee()[100:161, 200:283]
    Image.fromarray(pixels).save("coffee.png")
    told: list[Reconstruction] = []
    tensor = torch.from_numpy(pixels.copy()).movedim(2, 0)
    found = reconstruct(
        tokenizer, ["coffee.png", pixels, tensor[None] / 127.5 - 1, Image.fromarray(pixels)], progress=told.append
    )
    assert [each.name for each in found.pictures] == ["coffee", "picture-0", "picture-1", "picture-2"]
    assert told == list(found.pictures)
    for each in found.pictures:
        assert each.pixels.shape == each.coding_map.shape == pixels.shape
        assert np.array_equal(each.pixels, found.pictures[0].pixels)
        assert each.figures == found.pictures[0].figures
    assert found.record.values["psnr"].value == pytest.approx(found.pictures[0].figures.psnr)
    assert os.listdir() == ["coffee.png"], "nothing was asked to be written"


def test_a_single_picture_may_be_given(tokenizer: Tokenizer) -> None:
    (done,) = reconstruct(tokenizer, skimage.data.coffee()[:32, :40]).pictures
    assert (done.figures.height, done.figures.width, done.source) == (32, 40, None)


def test_a_picture_that_cannot_be_read_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    found = reconstruct(tokenizer, [str(tmp_path / "a.png"), skimage.data.coffee()[:16, :16]], tmp_path / "out")
    assert list(found.failed) == [str(tmp_path / "a.png")]
    assert [record["name"] for record in found.record.images] == ["picture-0"]
    assert found.pictures == () and (tmp_path / "out" / "picture-0.png").is_file()


def test_other_pixels_are_refused_in_a_line(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"images must be .* not of the shape \[8, 8\]"):
        reconstruct(tokenizer, torch.zeros(8, 8))


def test_a_big_picture_takes_little_more_memory_than_its_pixels(tokenizer: Tokenizer) -> None:
    pixels = torch.zeros(3, 1200, 1600, dtype=torch.uint8)
    pixels[0, ::3] = 200
    coded = CodedPicture(pixels.flip(0), 9, None)
    seen: list[int] = []

    class Sizes(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                seen.append(found.numel() * found.element_size())
            return found

    with Sizes():
        figures = picture_figures(pixels, coded, tokenizer.spec)
    exact = psnr(pixels.flip(0)[None] / 127.5 - 1, pixels[None] / 127.5 - 1)
    assert figures.psnr == pytest.approx(exact.item(), abs=1e-4)
    assert max(seen) < 4 * pixels.numel(), "no float or integer for each value of the whole picture"


@pytest.mark.parametrize("tile", [1024, 32])
def test_a_picture_has_the_rate_whatever_its_tiles(tile: int) -> None:
    tokenizer = rated()
    picture = skimage.data.coffee()[100:180, 200:296]
    for rate, least, most in (("codes=300", 300, 300), ("max-codes=150", 120, 150), ("bpp=0.2", 354, 354)):
        found = reconstruct(tokenizer, picture, rate=rate, tile=tile)
        assert least <= found.pictures[0].figures.code_length <= most
        assert found.record.protocol["rate"] == rate
    with pytest.raises(UserError, match="no rate is called"):
        reconstruct(tokenizer, picture, rate="bits=3")
    for rate, problem in (
        ("codes=10", "at least 120 codes"),
        ("max-codes=10", "at least 120 codes"),
        ("bpp=0.001", "at least 120 codes"),
        ("codes=301", "300 or 303 codes, not 301"),
        ("codes=999", "480 codes, not 999"),
        ("mean-codes=999", "120 to 480 codes"),
    ):
        assert problem in reconstruct(tokenizer, picture, rate=rate, tile=tile).failed["picture-0"]


@pytest.mark.parametrize("tile", [1024, 16])
def test_a_rate_is_that_of_the_picture_and_not_of_what_was_added_to_it(tile: int) -> None:
    tokenizer = rated()
    picture = skimage.data.coffee()[100:117, 200:233]
    for bits in (0.2, 0.3, 0.4):
        figures = reconstruct(tokenizer, picture, rate=f"bpp={bits}", tile=tile).pictures[0].figures
        assert bits - 3 * 4 / (17 * 33) < figures.bits / (17 * 33) <= bits
    assert not reconstruct(tokenizer, skimage.data.coffee()[:9, :9], rate="ssim=0.1").failed


def rated() -> DQVAE:
    torch.manual_seed(0)
    return DQVAE(
        PatchEncoder([4, 8], width=8, blocks=1, channels=8),
        EntropyGate({4: 0.5, 8: 0.5}, [1.5]),
        EMAVectorQuantizer(16, 4),
        PixelShuffleDecoder(4, channels=8, width=8, blocks=1),
    ).eval()
