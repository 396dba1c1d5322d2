"""Codes in a file of safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vltok.errors import UserError
from vltok.files import written_whole

#: The values of `Codes` that are tensors; the first two are always there.
TENSORS = ("ids", "lengths", "grains", "labels", "embeddings")
_FILE = {"format": "vltok codes", "version": "1"}


def write_codes(path: str | os.PathLike, values: Mapping[str, Tensor], texts: Sequence[str] | None) -> None:
    """Write the values of codes, by name, and the texts of their images, whole or not at all."""
    # copies: tensors that share memory are not written
    copies = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in values.items()}
    if texts is not None:
        encoded = [_encoded(text) for text in texts]
        copies["texts"] = torch.tensor(list(b"".join(encoded)), dtype=torch.uint8)
        copies["text_lengths"] = torch.tensor([len(text) for text in encoded], dtype=torch.long)
    with written_whole(Path(path)) as file:
        save_file(copies, file, _FILE)


def read_codes(path: str | os.PathLike) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """The values that `write_codes` wrote, on the CPU, and the texts.

    Raises:
        UserError: It is no such file, or it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            about, found = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(str(error)) from error
    encoded, lengths = found.pop("texts", None), found.pop("text_lengths", None)
    if about != _FILE or not set(TENSORS[:2]) <= found.keys() <= set(TENSORS):
        raise UserError("it was not written by Codes.save")
    return found, None if encoded is None and lengths is None else _texts(encoded, lengths)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"a text of codes is no Unicode: {error}") from error


def _texts(encoded: Tensor | None, lengths: Tensor | None) -> tuple[str, ...]:
    if encoded is None or lengths is None or encoded.dtype != torch.uint8 or lengths.dtype != torch.long:
        raise UserError("its texts are no bytes, or have no lengths")
    if encoded.dim() != 1 or lengths.dim() != 1 or (lengths < 0).any() or int(lengths.sum()) != len(encoded):
        raise UserError("the lengths of its texts do not sum to their bytes")
    try:
        return tuple(part.numpy().tobytes().decode("utf-8") for part in encoded.split(lengths.tolist()))
    except UnicodeDecodeError as error:
        raise UserError(f"its texts are no UTF-8 ({error})") from error
