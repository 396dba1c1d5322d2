"""`vltok.export`: a bundle as a model of another library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from vltok.errors import UserError, unknown
from vltok.io.bundle_files import read_bundle
from vltok.io.bundles import load_tokenizer
from vltok.io.export_diffusers import write_diffusers

#: What bundles can be written as.
FORMATS = ("diffusers",)


def export(bundle: str | os.PathLike, out: str | os.PathLike, to: Literal["diffusers"] = "diffusers") -> Path:
    """Write a tokenizer as another library loads it, with the same codes and pictures.

    Args:
        bundle: Its bundle, or a repository `user/name` of the Hugging Face Hub.
        out: The folder to write.
        to: ``diffusers``: `VQModel`, for tokenizers of one factor whose parts are `vqgan` and `vq`.

    Returns:
        The folder.

    Raises:
        UserError: There is no such bundle, the library has no counterpart of it, or the folder is taken.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' is there already, and is left as it is: choose another folder")
    tokenizer = load_tokenizer(bundle)
    write_diffusers(read_bundle(bundle, "tokenizer")[1]["tokenizer"], tokenizer.state_dict(), out)
    return out
