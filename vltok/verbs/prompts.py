"""Which texts or embeddings say what is drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vltok.drawing.conditioning import Conditioning
from vltok.errors import UserError
from vltok.paths import read_path
from vltok.pictures.embeddings import vectors_of


def choose_prompts(given: str | os.PathLike | Sequence[str] | None, conditioning: Conditioning) -> list[str] | None:
    """The texts that say what is drawn, at least one; None for pictures without.

    Args:
        given: A file with one a line, or the texts themselves; None for pictures without one.
        conditioning: The prior's.

    Raises:
        UserError: The prior reads no texts, or draws nothing without; or there is none in the file.
    """
    if given is None:
        if conditioning.described and not conditioning.label_dropout:
            raise UserError("this prior draws what a text describes: give --prompt TEXT, or --prompts FILE")
        return None
    if not conditioning.described:
        raise UserError("--prompts: this prior reads no texts: leave it out")
    prompts = _of_file(given) if isinstance(given, str | os.PathLike) else list(given)
    if not prompts:
        raise UserError("--prompts must hold a text at least")
    return prompts


def choose_embeddings(
    given: str | os.PathLike | np.ndarray | Tensor | None, conditioning: Conditioning
) -> Float[Tensor, "n e"] | None:
    """The embeddings that say what is drawn, at least one; None for pictures without.

    Args:
        given: A `.npy` of them, one a row, or the rows themselves; None for pictures without one.
        conditioning: The prior's.

    Raises:
        UserError: The prior reads no embeddings, or others, or draws nothing without; or the file holds none.
    """
    size = conditioning.embedding_size
    if given is None:
        if size is not None and not conditioning.label_dropout:
            raise UserError(f"this prior draws what an embedding says: give --embeddings FILE.npy, [n {size}]")
        return None
    if size is None:
        raise UserError("--embeddings: this prior reads no embeddings: leave it out")
    where = "--embeddings"
    if isinstance(given, str | os.PathLike):
        where = f"--embeddings '{given}'"
        try:
            rows = vectors_of(read_path(given).read_bytes(), where, axes=2)
        except OSError as error:
            raise UserError(f"{where} cannot be read ({error.strerror})") from error
        vectors = torch.from_numpy(rows)
    else:
        vectors = torch.as_tensor(given)
    if vectors.dim() != 2 or not len(vectors) or vectors.shape[1] != size:
        shape = list(vectors.shape)
        raise UserError(f"{where} must be [n {size}], one embedding a row as this prior reads them, not {shape}")
    return vectors.detach().float().cpu()


def _of_file(given: str | os.PathLike) -> list[str]:
    path = read_path(given)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"--prompts '{path}' is not UTF-8: {error}") from error
    except OSError as error:
        remedy = "one text is given with --prompt"
        raise UserError(f"--prompts '{path}' cannot be read ({error.strerror}); {remedy}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"--prompts '{path}' holds no text: write one a line")
    return prompts
