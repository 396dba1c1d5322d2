"""Images as a notebook has them become the batch that tokenizers take, or one line says what is wanted."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from vltok.colours import rgb_profile
from vltok.errors import UserError
from vltok.images import image_batch
from vltok.pictures.decoding import decode
from vltok.pictures.single import load_image

from .pictures.picture_files import chunk, with_chunks

PIXELS = torch.randint(256, (2, 3, 8, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FLOATS = PIXELS / 127.5 - 1
LAST = PIXELS.permute(0, 2, 3, 1)
P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
P3_CHUNK = struct.pack(">8I", *(round(each * 1e5) for each in P3))


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        FLOATS,
        FLOATS.double(),
        LAST,
        PIXELS.numpy(),
        FLOATS.numpy().astype(np.float64),
        LAST.numpy(),
        np.flip(np.flip(LAST.numpy(), 1).copy(), 1),
    ],
)
def test_a_batch(images: torch.Tensor | np.ndarray) -> None:
    found = image_batch(images, "cpu")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, FLOATS)
    torch.testing.assert_close(image_batch(images[0], None), FLOATS[:1])


def test_what_is_right_already_is_not_copied() -> None:
    assert image_batch(FLOATS, "cpu").data_ptr() == FLOATS.data_ptr()


def _png(mode: str, *chunks: bytes, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(LAST[0].numpy()).convert(mode).save(file, "PNG", **options)
    return with_chunks(file.getvalue(), *chunks)


def _turned(form: str, **options: object) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(LAST[0].numpy()).save(file, form, exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    "file",
    [
        *(_png(mode) for mode in ("RGB", "L", "P", "1", "I;16")),
        _png("P", transparency=0),
        _png("RGB", transparency=tuple(LAST[0, 0, 0].tolist())),
        _png("RGB", icc_profile=rgb_profile(P3, (2.2,))),
        _png("L", chunk(b"gAMA", struct.pack(">I", 100_000))),
        _png("RGB", chunk(b"gAMA", struct.pack(">I", 60_000)), chunk(b"cHRM", P3_CHUNK)),
        _png("RGB", chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"sRGB", b"\0")),
        _turned("JPEG"),
        _turned("TIFF"),
        _turned("WEBP", icc_profile=rgb_profile(P3, (1.8,))),
        _turned("PNG"),
    ],
)
def test_a_pillow_image_is_what_its_file_is(file: bytes, loaded: bool) -> None:
    image = Image.open(io.BytesIO(file))
    if loaded:
        image.load()
    expected = image_batch(np.array(decode(file)), "cpu")
    assert torch.equal(image_batch(image, "cpu"), expected)
    assert torch.equal(load_image(Image.open(io.BytesIO(file))), expected[0])


def test_colours_that_pillow_does_not_keep_are_read_where_the_file_is_still_open() -> None:
    file = _png("RGB", chunk(b"cICP", bytes([12, 13, 0, 1])))  # Display P3
    found = image_batch(Image.open(io.BytesIO(file)), "cpu")
    assert torch.equal(found, image_batch(np.array(decode(file)), "cpu"))
    assert not torch.equal(found, FLOATS[:1])


def test_a_clear_pillow_image_is_white() -> None:
    assert (image_batch(Image.new("RGBA", (8, 8)), "cpu") == 1).all()


def test_a_pillow_image_that_is_cut_off() -> None:
    file = _turned("JPEG")
    with pytest.raises(UserError, match=r"a Pillow image cannot be read: .*truncated"):
        image_batch(Image.open(io.BytesIO(file[: len(file) - 40])), "cpu")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (FLOATS[:, :1], r"not of the shape \[2, 1, 8, 16\]"),
        (FLOATS[0, 0], r"not of the shape \[8, 16\]"),
        (FLOATS[None], r"not of the shape \[1, 2, 3, 8, 16\]"),
        (PIXELS.long(), "not of torch.int64"),
        (PIXELS.bool(), "not of torch.bool"),
        (PIXELS.numpy().astype(np.int32), "not a ndarray of int32"),
        (PIXELS.numpy().astype(np.uint16), "not of torch.uint16"),
        (PIXELS.float(), "these floats reach from 0 to 255"),
        (FLOATS * float("nan"), "these floats reach from nan to nan"),
        (FLOATS.tolist(), "not a list"),
        ("photo.jpg", "not a str"),
    ],
)
def test_what_is_wanted_is_said(images: object, message: str) -> None:
    with pytest.raises(UserError, match=rf"images must be whole numbers of 8 bits.*{message}"):
        image_batch(images, "cpu")
