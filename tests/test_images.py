"""Images as a notebook has them become the batch that tokenizers take, or one line says what is wanted."""

import numpy as np
import pytest
import torch
from PIL import Image

from vltok.errors import UserError
from vltok.images import image_batch

PIXELS = torch.randint(256, (2, 3, 8, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FLOATS = PIXELS / 127.5 - 1
LAST = PIXELS.permute(0, 2, 3, 1)


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


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_a_pillow_image_of_any_mode(mode: str) -> None:
    image = Image.fromarray(LAST[0].numpy()).convert(mode)
    assert torch.equal(image_batch(image, "cpu"), image_batch(np.array(image.convert("RGB")), "cpu"))


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
