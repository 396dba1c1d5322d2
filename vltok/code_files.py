"""Codes in a file of safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vltok.errors import UserError
from vltok.files import written_whole

_FILE = {"format": "vltok codes", "version": "1"}


def write_codes(path: str | os.PathLike, values: Mapping[str, Tensor]) -> None:
    """Write the values of codes, by name, whole or not at all."""
    # copies: tensors that share memory are not written
    copies = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in values.items()}
    with written_whole(Path(path)) as file:
        save_file(copies, file, _FILE)


def read_codes(path: str | os.PathLike) -> dict[str, Tensor]:
    """The values that `write_codes` wrote, on the CPU.

    Raises:
        UserError: It is no such file, or it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            about, found = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(str(error)) from error
    if about != _FILE or not {"ids", "lengths"} <= found.keys() <= {"ids", "lengths", "grains", "labels"}:
        raise UserError("it was not written by Codes.save")
    return found
