"""Where the embeddings of pictures stand, vectors such as CLIP's, and how they are read."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from vltok.errors import UserError, one_line
from vltok.pictures.samples import TarSample

_ENDING = "npy"


@dataclass(frozen=True)
class EmbeddingPlace:
    """Where embeddings stand: every picture has one.

    Attributes:
        ending: How their files are called: ``npy`` for ``NAME.npy`` beside ``NAME.jpg``, or the member `.npy` of a
            sample in shards; ``clip.npy`` for ``NAME.clip.npy``.
    """

    ending: str

    @classmethod
    def of(cls, given: str, option: str) -> EmbeddingPlace:
        """What a user says.

        Args:
            given: What was said.
            option: What it was given by.

        Raises:
            UserError: Embeddings are read from no such place.
        """
        if given != given.lower() or given.split(".")[-1] != _ENDING or not all(given.split(".")) or "/" in given:
            raise UserError(f"{option} must be npy, or an ending such as clip.npy in small letters, not '{given}'")
        return cls(given)

    def of_sample(self, sample: TarSample) -> Float32[np.ndarray, " e"]:
        """The embedding of a sample of a shard.

        Raises:
            UserError: It has none, or what is none.
        """
        where = f"sample {sample.key} of shard '{sample.shard}'"
        if sample.npy is None:
            raise UserError(f"{where} has no embedding: every picture needs one, as a member .{self.ending}")
        return vectors_of(sample.npy(), where, axes=1)

    def of_file(self, root: str, path: str) -> Float32[np.ndarray, " e"]:
        """The embedding of a picture of a folder, by its relative path.

        Raises:
            UserError: It has none, or what is none.
        """
        beside = Path(root, f"{os.path.splitext(path)[0]}.{self.ending}")
        try:
            content = beside.read_bytes()
        except OSError as error:
            what = f"the embedding of '{path}', cannot be read ({error.strerror}): every picture needs one"
            raise UserError(f"'{beside}', {what}") from error
        return vectors_of(content, f"'{beside}'", axes=1)


def vectors_of(content: bytes, where: str, axes: int) -> Float32[np.ndarray, "..."]:
    """The array of a `.npy`, of so many axes, in float32.

    Raises:
        UserError: It is none, or not of numbers that are finite in float32.
    """
    try:
        found = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # of what a damaged header says, NumPy raises errors of many kinds
        raise UserError(f"{where} has no readable embedding: {one_line(error)}") from error
    if found.dtype.kind not in "fiu":
        raise UserError(f"{where} has no readable embedding: it must be one array of numbers (.npy)")
    if found.ndim != axes or not found.size:
        shape = "[e]" if axes == 1 else "[n e]"
        raise UserError(f"{where} has no readable embedding: it must be {shape}, not {list(found.shape)}")
    with np.errstate(over="ignore"):
        vectors = found.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"{where} has no readable embedding: it holds a number that is not finite")
    return vectors
