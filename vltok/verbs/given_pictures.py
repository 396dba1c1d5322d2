"""Pictures that a verb is given one by one, as paths, folders, patterns or pixels; and the names of their results."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vltok.errors import UserError
from vltok.files import safe_name
from vltok.images import image_batch
from vltok.measures.pixels import to_bytes
from vltok.paths import find_files
from vltok.pictures import finding
from vltok.pictures.decoding import decode
from vltok.pictures.formats import ending_of, is_picture, left_out
from vltok.pictures.transforms import to_bytes_tensor

_LOG = logging.getLogger(__name__)
#: A path, a folder of pictures, a pattern; or what `vltok.images.image_batch` takes.
Picture = str | os.PathLike | Image.Image | np.ndarray | Tensor


def pictures_by_name(
    given: Picture | Sequence[Picture], out: Path | None, endings: Sequence[str]
) -> dict[str, Path | UInt8[Tensor, "3 H W"]]:
    """Paths and pixels by the name of their results.

    Args:
        given: One picture or several.
        out: The folder of the results, or None where nothing is written.
        endings: What follows a name in those of its results.

    Raises:
        UserError: As `find_pictures` and `name_outputs`, or pixels are none.
    """
    given = [given] if isinstance(given, Picture) else given
    paths = find_pictures([each for each in given if isinstance(each, str | os.PathLike)], out)
    images = [to_bytes(image_batch(each, None).cpu()) for each in given if not isinstance(each, str | os.PathLike)]
    pixels = [each for batch in images for each in batch]
    named = [*paths, *(Path(f"picture-{number}") for number in range(len(pixels)))]
    names = name_outputs(named, out or Path(os.devnull), endings)
    return dict(zip(names, [*paths, *pixels], strict=True))


def pixels_of(given: Path | UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 H W"]:
    """The pixels of what `pictures_by_name` gave.

    Raises:
        CorruptPicture: A file cannot be read.
    """
    return to_bytes_tensor(decode(given)) if isinstance(given, Path) else given


def skip(failed: dict[str, str], what: object, error: Exception, remedy: str = "") -> None:
    """Note why one of many could not be done, and warn of it; the others go on.

    Args:
        failed: Takes the reason, by path or name.
        what: The path or name.
        error: What stopped it.
        remedy: What to do where memory ran out.
    """
    failed[str(what)] = f"out of memory{remedy}" if isinstance(error, torch.OutOfMemoryError) else str(error)
    _LOG.warning("skipped '%s': %s", what, failed[str(what)])


def find_pictures(given: Sequence[str | os.PathLike], out: Path | None) -> list[Path]:
    """The pictures that are meant: files, those in folders and their sub-folders, and those that a pattern matches.

    Earlier results in `out`, where it lies in one of the folders, are not among them.

    Raises:
        UserError: A path or pattern leads to no picture.
    """
    results = None if out is None else out.resolve()
    found: list[Path] = []
    for text in given:
        places = [Path(place) for place in find_files("PICTURES", text)]
        files = [place for place in places if not place.is_dir()]
        # a wildcard takes in what lies beside pictures, too
        matches = files if len(places) == 1 else [file for file in files if is_picture(file.name)] or files
        others = Counter(ending_of(file.name) for file in files if file not in matches and left_out(file.name))
        if others:
            _LOG.warning("'%s': %s", text, finding.FoundPictures((), dict(others.most_common()), (), {}).remark)
        for folder in places:
            if folder.is_dir():
                below = finding.find_pictures(folder)
                matches += [file for file in map(folder.joinpath, below.paths) if results not in file.resolve().parents]
                if below.remark:
                    _LOG.warning("'%s': %s", text, below.remark)
        if not matches:
            here = results in [place.resolve() for place in places]
            besides = f" besides what --out '{out}' holds, which counts as results: name another folder" if here else ""
            raise UserError(f"PICTURES '{text}': this folder holds no picture{besides}")
        found += matches
    return list({path.resolve(): path for path in found}.values())


def name_outputs(sources: Sequence[Path], out: Path, endings: Sequence[str]) -> list[str]:
    """A name for the results of each file, such that none overwrites another, nor a file that is read.

    Args:
        sources: What is read.
        out: The folder of the results.
        endings: What follows a name in those of its results.

    Raises:
        UserError: A result would overwrite a file that is read.
    """
    read = {path.resolve() for path in sources}
    taken: set[str] = set()
    names: list[str] = []
    tried: Counter[str] = Counter()
    for path in sources:
        stem = safe_name(path.stem) or "picture"
        for number in itertools.count(tried[stem] + 1):
            tried[stem] = number
            name = stem if number == 1 else f"{stem}-{number}"
            # some file systems tell neither capital letters from small ones nor the forms of accented ones apart
            files = {normalize("NFC", f"{name}{ending}").casefold() for ending in endings}
            if taken.isdisjoint(files):
                break
        taken |= files
        names.append(name)
        for ending in endings:
            if (file := out / f"{name}{ending}").resolve() in read:
                raise UserError(f"--out '{out}': the result would overwrite the input '{file}'; name another folder")
    return names
