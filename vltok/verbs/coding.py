"""Batches through a tokenizer and back, and codes as the samples of shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vltok.codes import Codes
from vltok.interfaces import Tokenizer
from vltok.nn.precision import computing
from vltok.pictures.images import ImageBatch
from vltok.sequences.shards import CodeSample, codes_of


@torch.inference_mode()
def encode(
    encoder: Callable[[Float[Tensor, "b 3 H W"]], Codes],
    images: Float[Tensor, "b 3 H W"],
    precision: str,
    device: torch.device | str,
) -> Codes:
    """The codes of images, on the CPU.

    Args:
        encoder: What gives them, with networks in evaluation mode, on `device`.
        images: In [-1, 1].
        precision: What to compute in: see `computing`.
        device: Where to compute.
    """
    with computing(device, precision):
        return encoder(images.to(device, non_blocking=True)).to("cpu")


@torch.inference_mode()
def decode(tokenizer: Tokenizer, samples: Sequence[CodeSample], device: torch.device | str) -> Float[Tensor, "b 3 H W"]:
    """The images of samples whose pictures had one size, on `device`, in float32.

    Raises:
        UserError: The samples are no codes of the tokenizer.
    """
    with computing(device):
        return tokenizer.decode(codes_of(samples).to(device))


def samples_of(
    codes: Codes, places: Sequence[int], keys: Sequence[str], told: ImageBatch | Codes
) -> Iterator[CodeSample]:
    """Each image's codes as a sample. NumPy splits the batch: indexing `Codes` image by image would take longer.

    Args:
        codes: On the CPU.
        places: The place of each image in the input.
        keys: What names it.
        told: Has the labels, texts and embeddings.
    """
    ids = np.split(codes.ids.numpy(), codes.lengths.cumsum(0)[:-1].numpy())
    for image, place in enumerate(places):
        yield CodeSample(
            index=place,
            key=keys[image],
            ids=ids[image],
            grains=None if codes.grains is None else codes.grains[image].numpy(),
            label=None if told.labels is None else int(told.labels[image]),
            text=None if told.texts is None else told.texts[image] or None,
            embedding=None if told.embeddings is None else told.embeddings[image].numpy(),
        )
