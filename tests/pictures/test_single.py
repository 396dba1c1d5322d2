"""`vltok.load_image`: one picture as a tokenizer takes it."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

import vltok
from vltok.errors import UserError
from vltok.pictures.transforms import to_tensor


def test_a_file_its_bytes_and_a_pillow_image_are_one_picture(astronaut: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "astronaut.png"
    astronaut.save(path)
    expected = to_tensor(astronaut)
    for picture in (path, str(path), path.read_bytes(), astronaut):
        assert torch.equal(vltok.load_image(picture), expected)


def test_it_stands_upright_on_white(astronaut: Image.Image) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    astronaut.save(file, "PNG", exif=exif)
    upright = to_tensor(astronaut.transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(vltok.load_image(file.getvalue()), upright)
    assert torch.equal(vltok.load_image(Image.open(file)), upright)
    assert (vltok.load_image(Image.new("RGBA", (4, 4), (0, 0, 0, 0))) == 1).all()


def test_a_square_of_a_size(astronaut: Image.Image) -> None:
    assert vltok.load_image(astronaut, size=40).shape == (3, 40, 40)


def test_it_is_continued_by_its_reflection(astronaut: Image.Image) -> None:
    plain, found = to_tensor(astronaut), vltok.load_image(astronaut, divisor=50)
    assert found.shape == (3, 100, 100)
    assert torch.equal(found[:, :72, :96], plain)
    assert torch.equal(found[:, 72:, :96], plain[:, 43:71].flip(1))
    assert torch.equal(found[:, :72, 96:], plain[:, :, 91:95].flip(2))
    assert torch.equal(vltok.load_image(astronaut, divisor=24), plain)
    # a picture narrower than what is missing
    assert vltok.load_image(astronaut.crop((0, 0, 1, 3)), divisor=16).shape == (3, 16, 16)


def test_what_is_no_picture_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.png' cannot be read as a picture"):
        vltok.load_image(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="the bytes cannot be read as a picture"):
        vltok.load_image(b"no picture")
    with pytest.raises(UserError, match="divisor"):
        vltok.load_image(Image.new("RGB", (4, 4)), divisor=0)
