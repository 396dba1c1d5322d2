"""Images as a notebook has them, as the batch that tokenizers take. Axis letters: b image, H W pixels."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vltok.errors import UserError
from vltok.shown import from_pillow

#: Where images were resized or decoded, values reach a little beyond [-1, 1]; beyond this they are of another range.
_FARTHEST = 2.0
_WANTED = (
    "images must be whole numbers of 8 bits (uint8) or floats in [-1, 1], of the shape [b 3 H W], or [3 H W] for one; "
    "or a Pillow image"
)


def image_batch(
    images: Tensor | np.ndarray | Image.Image, device: torch.device | str | None = None
) -> Float[Tensor, "b 3 H W"]:
    """One image or a batch as floats in [-1, 1] on a device; a batch of float32 there is given back as it is.

    What floats hold is looked at on the CPU alone: nobody waits for a GPU.

    Args:
        images: A Pillow image of any mode, taken as its file would be: upright, in sRGB, on white. Or an array or
            tensor of uint8, in 0 … 255, or of floats, in [-1, 1], with three channels: `[b 3 H W]` or `[3 H W]`, or
            with the channels last, `[b H W 3]` or `[H W 3]`.
        device: Where they are wanted; None leaves them where they are.

    Raises:
        UserError: They are something else.
    """
    if isinstance(images, Image.Image):
        images = np.array(from_pillow(images))
    if isinstance(images, np.ndarray) and images.dtype.kind in "uf":
        images = torch.from_numpy(np.ascontiguousarray(images))
    if not isinstance(images, Tensor):
        of = f" of {images.dtype}" if isinstance(images, np.ndarray) else ""
        raise UserError(f"{_WANTED}, not a {type(images).__name__}{of}")
    shape = tuple(images.shape)
    if len(shape) not in (3, 4) or 3 not in (shape[-3], shape[-1]):
        raise UserError(f"{_WANTED}, not of the shape {list(shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"{_WANTED}, not of {images.dtype}")
    images = images if len(shape) == 4 else images[None]
    images = images if shape[-3] == 3 else images.movedim(-1, -3).contiguous()
    images = images if device is None else images.to(device)
    if images.dtype == torch.uint8:
        return images / 127.5 - 1
    if images.device.type == "cpu" and images.numel():
        lowest, highest = (float(value) for value in images.aminmax())
        if not -_FARTHEST <= lowest <= highest <= _FARTHEST:  # comparisons that NaN fails
            raise UserError(f"{_WANTED}; these floats reach from {lowest:g} to {highest:g}")
    return images.float()
