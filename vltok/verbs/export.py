"""`vltok.export`: a bundle as a model of another library."""

from __future__ import annotations

import os
from pathlib import Path

from vltok.errors import UserError
from vltok.files import folder_written_whole
from vltok.io.bundle_files import read_bundle
from vltok.io.bundles import load_prior, load_tokenizer
from vltok.registry import find


def export(bundle: str | os.PathLike, out: str | os.PathLike, to: str = "diffusers") -> Path:
    """Write a tokenizer or a prior as a folder that another library loads, with the same numbers.

    `vltok plugins exporter` lists the libraries.

    Args:
        bundle: A bundle, or a repository `user/name` of the Hugging Face Hub.
        out: The folder to write, whole or not at all.
        to: The library, by the name of its exporter, such as ``diffusers``: its VQModel, for tokenizers of one factor
            whose parts are `vqgan`, `vq` and `vqgan`.

    Returns:
        The folder.

    Raises:
        UserError: There is no such exporter or bundle, the library has no counterpart of it, or the folder is taken.
    """
    exporter = find("exporter", to).load()()
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' is there already, and is left as it is: choose another folder")
    _, content = read_bundle(bundle, exporter.kind)
    model = (load_tokenizer if exporter.kind == "tokenizer" else load_prior)(bundle)
    with folder_written_whole(out) as folder:
        exporter.write(model, content, folder)
    return out
