"""`vltok.compress`: pictures as small files, which `vltok.decompress` reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vltok.compression.tables import CodeTables
from vltok.errors import UserError, whole_number
from vltok.files import alone_in, check_folder, written_whole
from vltok.interfaces import Prior, Tokenizer
from vltok.io.bundles import trained_grids
from vltok.pictures.decoding import CorruptPicture
from vltok.rates import Rate
from vltok.verbs.coders import ENDING, open_coders
from vltok.verbs.given_pictures import Picture, pictures_by_name, pixels_of, skip

_TILE = 1024


@dataclass(frozen=True)
class CompressedPicture:
    """A picture as a file.

    Attributes:
        name: The file's, without its ending; no other picture has it.
        source: The picture's path, or None where pixels were given.
        height: Of the picture, in pixels.
        width: In pixels.
        code_length: How many codes it has.
        size: How many bytes the file has.
        data: The file; None where it was written to a folder.
    """

    name: str
    source: Path | None
    height: int
    width: int
    code_length: int
    size: int
    data: bytes | None

    @property
    def bits_per_pixel(self) -> float:
        """Those of the whole file."""
        return 8 * self.size / (self.height * self.width)


@dataclass(frozen=True)
class Compressed:
    """What `compress` gave.

    Attributes:
        pictures: The pictures that were compressed.
        failed: Why others could not be, by path or name.
    """

    pictures: tuple[CompressedPicture, ...]
    failed: dict[str, str]


def compress(
    tokenizer: Tokenizer | str | os.PathLike,
    pictures: Picture | Sequence[Picture],
    out: str | os.PathLike | None = None,
    *,
    rate: Rate | str | None = None,
    prior: Prior | str | os.PathLike | None = None,
    tables: CodeTables | None = None,
    tile: int | None = None,
    device: str | None = None,
    trust: bool = False,
    progress: Callable[[CompressedPicture], None] | None = None,
) -> Compressed:
    """Encode pictures of any size, and write their codes as small files.

    For each, a folder receives NAME.vlt, from which `vltok decompress` makes the picture. NAME is the picture's name
    without its ending, with a number where two pictures share it.

    How many bits a code takes follows from how often it occurs beside others, which `vltok rate` measures and stores
    with the bundle; without that, all codes take equally many. A prior knows more, and takes longer: a step of it for
    every code.

    Args:
        tokenizer: A tokenizer's bundle, a folder or `user/name`; in Python, a tokenizer too, and then files name it by
            its weights: its bundle does not read them.
        pictures: Pictures, folders of pictures, or (quoted) patterns such as `a/**/*.jpg`; in Python also Pillow's
            images, or arrays and tensors of one image or a batch: uint8, or floats in [-1, 1].
        out: The folder that receives the files; in Python they are given back without it, and nothing is written.
        rate: How many codes pictures get, such as ``codes=400``; see `vltok.Rate`.
        prior: A prior's bundle, under whose probabilities the codes are coded, on the CPU: the picture is then divided
            into tiles of the size of its images, or, where it draws any, of `tile`; in Python, a prior too.
        tables: How often codes occur; by default what the bundle says.
        tile: A picture with a longer side, in pixels, is coded in tiles of about equal size, each as a picture of its
            own; bounds the memory. By default 1024, or, under a prior that draws images of any size, the longest side
            of those that it was trained on, where its bundle tells it.
        device: `cpu`, `cuda` or `cuda:1`; by default where the tokenizer is, or a GPU where there is one.
        trust: Whether the bundle may name more than registered components: see `load_tokenizer`.
        progress: Is given each picture as soon as it is done.

    Raises:
        UserError: An argument is wrong. A picture that cannot be read or coded is warned of, and named in the result.
    """
    if tile is not None:
        whole_number("--tile", tile, 1)
    folder = None if out is None else check_folder("--out", out)
    inputs = pictures_by_name(pictures, folder, (ENDING,))
    done: list[CompressedPicture] = []
    failed: dict[str, str] = {}
    alone = contextlib.nullcontext() if folder is None else alone_in(folder)
    with alone, open_coders(tokenizer, prior, tables, device, trust) as coders:
        coder = coders.to_compress()
        pictures_coder = coders.pictures(coder, rate)
        if tile is None:
            grids = () if prior is None or isinstance(prior, Prior) else trained_grids(prior)
            tile = max((max(grid) * coders.opened.model.spec.factors[0] for grid in grids), default=_TILE)
        for name, given in inputs.items():
            source = given if isinstance(given, Path) else None
            try:
                picture = pixels_of(given)
                data, length = pictures_coder.compress(picture, coder, tile)
            except (CorruptPicture, UserError, torch.OutOfMemoryError) as error:
                skip(failed, source or name, error, ": give a smaller --tile")
                continue
            if folder is not None:
                with written_whole(folder / f"{name}{ENDING}") as file:
                    file.write_bytes(data)
            height, width = picture.shape[1:]
            kept = data if folder is None else None
            done.append(CompressedPicture(name, source, height, width, length, len(data), kept))
            if progress is not None:
                progress(done[-1])
    return Compressed(tuple(done), failed)
