"""`vltok.decompress`: the pictures of files that `vltok.compress` wrote."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from vltok.compression.file_format import unpack
from vltok.compression.pictures import cuttable, most_stages
from vltok.compression.tables import CodeTables
from vltok.errors import UserError
from vltok.files import alone_in, check_folder, written_whole
from vltok.interfaces import Prior, Tokenizer
from vltok.measures.pixels import to_picture
from vltok.paths import find_files
from vltok.verbs.coders import ENDING, Coders, open_coders
from vltok.verbs.given_pictures import name_outputs, skip

_LOG = logging.getLogger(__name__)
#: A path, a folder of files, a pattern; or the bytes of a file.
Compact = str | os.PathLike | bytes


@dataclass(frozen=True, eq=False)
class DecompressedPicture:
    """The picture of a file.

    Attributes:
        name: That of its results; no other file has it.
        source: The file's path, or None where its bytes were given.
        pixels: The picture; None where it was written to a folder.
        growing: What fewer codes of the file make, from the coarsest on, where that was asked for.
        sections: How many sections of the file are there whole; only with `progressive` some may be missing.
        of: How many it had: one for each granularity, or one in all.
        held: How much of a file is there whose end is missing, such as ``1 of 2 granularities``; empty where all is.
    """

    name: str
    source: Path | None
    pixels: UInt8[np.ndarray, "H W 3"] | None
    growing: tuple[UInt8[np.ndarray, "H W 3"], ...]
    sections: int
    of: int
    held: str


@dataclass(frozen=True, eq=False)
class Decompressed:
    """What `decompress` gave.

    Attributes:
        pictures: Those of the files that could be read.
        failed: Why others could not be, by path or name.
    """

    pictures: tuple[DecompressedPicture, ...]
    failed: dict[str, str]


def decompress(
    tokenizer: Tokenizer | str | os.PathLike,
    files: Compact | Sequence[Compact],
    out: str | os.PathLike | None = None,
    *,
    prior: Prior | str | os.PathLike | None = None,
    tables: CodeTables | None = None,
    progressive: bool = False,
    device: str | None = None,
    trust: bool = False,
    progress: Callable[[DecompressedPicture], None] | None = None,
) -> Decompressed:
    """Make pictures of the files that `vltok compress` wrote.

    Each becomes NAME.png, of the size that the picture had. NAME is the file's name without its ending, with a number
    where two files share it.

    Args:
        tokenizer: The bundle with which they were compressed; in Python, a tokenizer too.
        files: Files, folders of files that end in .vlt, or (quoted) patterns such as `a/**/*.vlt`; in Python also
            bytes.
        out: The folder that receives the pictures; in Python they are given back without it, and nothing is written.
        prior: The prior's bundle, where they were compressed with one; in Python, a prior too.
        tables: How often codes occur, where the bundle does not say it.
        progressive: Show the picture growing: NAME.1.png is what the codes of the coarsest granularity make, and so on
            up to NAME.png; of codes that may be cut anywhere, the first one, two, four, and so on. Of a file whose end
            is missing, what is there is shown.
        device: `cpu`, `cuda` or `cuda:1`; by default where the tokenizer is, or a GPU where there is one.
        trust: Whether the bundle may name more than registered components: see `load_tokenizer`.
        progress: Is given each picture as soon as it is done.

    Raises:
        UserError: An argument is wrong. A file that is damaged, or of another tokenizer, is warned of, and named in the
            result.
    """
    folder = None if out is None else check_folder("--out", out)
    sources = _find([files] if isinstance(files, Compact) else files)
    done: list[DecompressedPicture] = []
    failed: dict[str, str] = {}
    alone = contextlib.nullcontext() if folder is None else alone_in(folder)
    with alone, open_coders(tokenizer, prior, tables, device, trust) as coders:
        stages = most_stages(coders.opened.model) if progressive else 1
        endings = [".png", *(f".{stage}.png" for stage in range(1, stages))]
        names = name_outputs(list(sources), folder or Path(os.devnull), endings)
        for name, (path, data) in zip(names, sources.items(), strict=True):
            try:
                picture = _read(coders, name, path, data, progressive)
            except (UserError, OSError, torch.OutOfMemoryError) as error:
                skip(failed, path, error)
                continue
            if folder is not None:
                picture = _written(picture, folder)
            done.append(picture)
            if progress is not None:
                progress(picture)
    return Decompressed(tuple(done), failed)


def _read(coders: Coders, name: str, path: Path, data: bytes | None, progressive: bool) -> DecompressedPicture:
    file = unpack(path.read_bytes() if data is None else data)
    coder = coders.to_decompress(file.header)
    pictures = coders.pictures(coder)
    here, of = len(file.sections), len(file.ends)
    what = f"it is cut: {file.size} of its {file.ends[-1]} bytes are there"
    if file.cut and not progressive:
        raise UserError(f"{what}; --progressive shows what they hold")
    if file.cut and not here and not cuttable(coders.opened.model):
        raise UserError(f"{what}, and the codes of the coarsest granularity end with byte {file.ends[0]}")
    stages = pictures.stages(file, coder) if progressive else [pictures.decode(file, coder, here)]
    held = ""
    if file.cut:
        codes = sum(int(tile.codes.lengths) for tile in stages[-1])
        held = f"{codes} codes" if cuttable(coders.opened.model) else f"{here} of {of} granularities"
        _LOG.warning("'%s': %s, which hold %s", path, what, held)
    grown = [np.asarray(to_picture(pictures.picture(file, tiles))) for tiles in stages]
    return DecompressedPicture(name, path if data is None else None, grown[-1], tuple(grown[:-1]), here, of, held)


def _written(done: DecompressedPicture, folder: Path) -> DecompressedPicture:
    """The same without its pixels, which are written."""
    endings = [*(f".{stage}.png" for stage in range(1, len(done.growing) + 1)), ".png"]
    for pixels, ending in zip((*done.growing, done.pixels), endings, strict=True):
        assert pixels is not None
        with written_whole(folder / f"{done.name}{ending}") as file:
            Image.fromarray(pixels).save(file)
    return DecompressedPicture(done.name, done.source, None, (), done.sections, done.of, done.held)


def _find(given: Sequence[Compact]) -> dict[Path, bytes | None]:
    """The files that are meant, and the bytes of those that are none, by their path or a name.

    Raises:
        UserError: A path or pattern leads to no file.
    """
    found: dict[Path, bytes | None] = {}
    for number, each in enumerate(given):
        if isinstance(each, bytes):
            found[Path(f"file-{number}")] = each
            continue
        for place in map(Path, find_files("FILES", each)):
            files = sorted(place.rglob(f"*{ENDING}")) if place.is_dir() else [place]
            if not files:
                raise UserError(f"FILES '{each}': the folder '{place}' holds no file that ends in {ENDING}")
            found |= dict.fromkeys(files)
    return found
