"""Tokenizers and codecs behind one interface: what they give back, and what it takes."""

import io
import math
import sys
import types
from functools import partial

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from vltok.errors import UserError
from vltok.evaluation.coders import CodecCoder, TokenizerCoder, coarsest_codes, codecs_here
from vltok.measures.pixels import to_bytes
from vltok.sequences.statistics import CodeCounts

from ..cli.exports import write_bundle


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    photograph = torch.from_numpy(skimage.data.astronaut()).movedim(-1, 0)
    return torch.stack([photograph[:, :64, 160:224], photograph[:, 60:124, 200:264]])


def asked_for(codec, quality):
    """How a codec is asked for a quality, as its own documentation has it."""
    if codec == "jpeg2000":
        return {"quality_mode": "dB", "quality_layers": [quality], "irreversible": True, "mct": 1, "no_jp2": True}
    return {"quality": quality, **{"jpeg": {"optimize": True}, "webp": {"method": 6}, "avif": {"speed": 6}}[codec]}


@pytest.mark.parametrize("codec", [codec for codec in codecs_here() if codec != "jpegxl"])
def test_a_codec_takes_the_bits_of_its_file(pixels, codec):
    coded = CodecCoder(codec, 30)(pixels)
    for place in range(2):
        file = io.BytesIO()
        Image.fromarray(pixels[place].movedim(0, -1).numpy()).save(file, codec, **asked_for(codec, 30))
        assert coded.bits[place] == 8 * len(file.getvalue())
        assert np.array_equal(coded.pixels[place].movedim(0, -1), np.array(Image.open(file).convert("RGB")))
    assert coded.codes is None
    assert CodecCoder(codec, 45)(pixels).bits.sum() > coded.bits.sum()


def test_a_plug_in_brings_jpeg_xl(pixels, monkeypatch):
    """It registers itself when it is imported; here one that writes PNG stands in for it."""
    assert ("jpegxl" in codecs_here()) == ("JXL" in Image.SAVE)
    monkeypatch.setitem(sys.modules, "pillow_jxl", types.ModuleType("pillow_jxl"))
    monkeypatch.setitem(Image.SAVE, "JXL", lambda image, file, name: Image.SAVE["PNG"](image, file, name))
    assert codecs_here()[-1] == "jpegxl"
    assert CodecCoder("jpegxl", 50)(pixels).pixels.equal(pixels)


def test_what_pillow_was_built_without_is_left_out(monkeypatch):
    monkeypatch.setattr("PIL.features.get_supported", lambda: ["jpg"])
    assert [codec for codec in codecs_here() if codec != "jpegxl"] == ["jpeg"]
    with pytest.raises(UserError, match=r"Pillow does not write avif here, but jpeg.*: pip install --upgrade pillow"):
        CodecCoder("avif", 30)


@pytest.mark.parametrize(("codec", "quality"), [("jpeg", 0), ("jpeg", 96), ("webp", 101)])
def test_a_quality_out_of_range(codec, quality):
    with pytest.raises(UserError, match=f"--quality must lie between 1 and .* for {codec}, not {quality}"):
        CodecCoder(codec, quality)


def test_the_bits_of_a_tokenizer_are_those_of_its_codes(pixels, tmp_path):
    tokenizer = write_bundle(tmp_path / "bundle").eval()
    coded = TokenizerCoder(tokenizer, "cpu")(pixels)
    expected = coded.codes.lengths * math.log2(300) + 64 * math.log2(2)
    assert torch.allclose(coded.bits, expected.float())
    statistics = CodeCounts.of(coded.codes, tokenizer.spec, 2 * 64 * 64).statistics(tokenizer.spec)
    assert coded.bits.sum().item() / (2 * 64 * 64) == pytest.approx(statistics["bits_per_pixel"]["codes_and_grain_map"])
    with torch.inference_mode():
        assert torch.equal(coded.pixels, to_bytes(tokenizer.decode(coded.codes)))
    next(tokenizer.decoder.parameters()).data.fill_(math.nan)
    with pytest.raises(UserError, match="NaN or infinite"):
        TokenizerCoder(tokenizer, "cpu")(pixels)


def test_a_tokenizer_with_its_coarsest_granularity_everywhere(pixels, tmp_path):
    tokenizer = write_bundle(tmp_path / "bundle").eval()
    coded = TokenizerCoder(tokenizer, "cpu", partial(coarsest_codes, tokenizer, tokenizer.spec))(pixels)
    assert coded.codes.lengths.tolist() == [64, 64] and coded.codes.grains.max() == 0
    with torch.inference_mode():
        assert torch.equal(coded.pixels, to_bytes(tokenizer.decode(coded.codes)))
    assert not torch.equal(coded.pixels, TokenizerCoder(tokenizer, "cpu")(pixels).pixels)
