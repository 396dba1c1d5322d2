"""Reading tar shards in WebDataset's layout: files that share a name up to the first dot are one sample."""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import braceexpand
import numpy as np
import webdataset
from jaxtyping import Float
from PIL import Image

from vltok.codes import LARGEST_LABEL
from vltok.errors import UserError
from vltok.pictures.decoding import EXTENSIONS, decode
from vltok.pictures.splits import unit_hash

#: The file beside shards that lists the names of their classes.
CLASSES_FILE = "classes.json"

_PICTURES = frozenset(extension.removeprefix(".") for extension in EXTENSIONS)
_CUT = "it was cut short: the mark at the end of a tar file is missing"
_ADDRESS = re.compile(r"pipe:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def list_shards(pattern: str, key: str) -> list[str]:
    """The shards that a pattern stands for: braces (`{000..146}`), then wildcards (`*`); addresses as they are.

    Args:
        pattern: What the user gave.
        key: What the user gives it by.

    Raises:
        UserError: A local shard that does not exist, or a pattern that matches none.
    """
    shards = []
    try:
        names = list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise UserError(f"{key} '{pattern}': {error}; write braces such as {{000..146}}") from error
    for name in names:
        if is_address(name) or Path(name).is_file():
            shards.append(name)
        elif glob.has_magic(name):
            shards.extend(sorted(glob.glob(name)))
        else:
            what = "is a folder" if Path(name).is_dir() else "does not exist"
            raise UserError(
                f"{key} '{pattern}': '{name}' {what}; give tar files, with braces or wildcards, such as "
                "'shards/train-{000000..000146}.tar' or 'shards/*.tar' (vltok pack writes them)"
            )
    if not shards:
        raise UserError(f"{key} '{pattern}' matches no file: give tar files, such as 'shards/*.tar' (see vltok pack)")
    return shards


def is_address(shard: str) -> bool:
    """Whether a shard is read from elsewhere (`https://…`, `pipe:…`), so that it cannot be looked into beforehand."""
    return _ADDRESS.match(shard) is not None


def class_names(shard: str) -> list[str] | None:
    """The names of the classes, from `classes.json` beside a local shard; None where there is none.

    Raises:
        UserError: The file is no list of names.
    """
    path = Path(shard).parent / CLASSES_FILE
    if is_address(shard) or not path.is_file():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}): remove it, or pack the shards again") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} must hold a list of names, one for each class: remove it, or pack the shards again")
    return names


def key_hashes(shard: str) -> Float[np.ndarray, " n"]:
    """The hash of each picture's key in a local shard; reads the headers alone.

    Raises:
        UserError: It is no tar file, or only part of one.
    """
    hashes = []
    last = None
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                key, extension = webdataset.tariterators.base_plus_ext(member.name)
                if member.isreg() and key is not None and key != last and _is_picture(extension.lower()):
                    hashes.append(unit_hash(key))
                    last = key
                tar.members = []  # or it keeps every header
    except (OSError, tarfile.TarError, EOFError) as error:
        raise _unreadable(shard, error) from error
    if not _ends_whole(shard):
        raise _unreadable(shard, EOFError(_CUT))
    return np.array(hashes, dtype=np.float64)


@dataclass(frozen=True)
class ShardSplit:
    """Some of the pictures of some shards: those whose keys' hashes lie in an interval.

    Attributes:
        shards: The shards.
        above: The hashes start above this.
        up_to: The largest hash.
    """

    shards: tuple[str, ...]
    above: float = -1.0
    up_to: float = 1.0

    def count(self, hashes: Float[np.ndarray, " n"]) -> int:
        """How many of these hashes belong to it."""
        return int(((hashes > self.above) & (hashes <= self.up_to)).sum())

    def samples(self, shards: tuple[str, ...]) -> Iterator[dict]:
        """The samples of some of the shards that belong to it, encoded, in the order in which they are stored.

        Raises:
            UserError: A shard cannot be read.
        """
        for shard in shards:
            try:
                for sample in webdataset.tariterators.tarfile_samples([{"url": shard}]):
                    if any(map(_is_picture, sample)) and self.above < unit_hash(sample["__key__"]) <= self.up_to:
                        yield sample
                if not is_address(shard) and not _ends_whole(shard):
                    raise EOFError(_CUT)
            except Exception as error:  # a broken file, or whatever the other end of an address does
                raise _unreadable(shard, error) from error


def decode_sample(sample: dict, least_side: int) -> Image.Image:
    """The picture of a sample as RGB.

    Raises:
        CorruptPicture: It cannot be read.
    """
    return decode(next(sample[name] for name in sample if _is_picture(name)), least_side)


def label_of(sample: dict) -> int | None:
    """The class of a sample: the number in `.cls`, or a whole number under `label` in `.json`; None without.

    Raises:
        UserError: `.cls` holds no number, `.json` is none, or the number has more than 64 bits.
    """
    label = None
    try:
        if "cls" in sample:
            label = int(sample["cls"])
        elif "json" in sample:
            record = json.loads(sample["json"])
            label = record.get("label") if isinstance(record, dict) else None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"sample {sample['__key__']} of shard '{sample['__url__']}' has no readable label ({error}): "
            "'.cls' must hold a whole number, '.json' valid JSON"
        ) from error
    if not isinstance(label, int) or isinstance(label, bool):
        return None
    if abs(label) > LARGEST_LABEL:
        raise UserError(
            f"sample {sample['__key__']} of shard '{sample['__url__']}' has a label of more than 64 bits: number the "
            "classes from 0 on"
        )
    return label


def _is_picture(extension: str) -> bool:
    return extension.rpartition(".")[2] in _PICTURES


def _ends_whole(shard: str) -> bool:
    """Whether a tar file has its end; tarfile takes one that was cut between two files for whole."""
    with open(shard, "rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
        if start[257:262] != b"ustar":  # compressed, where a cut is an error of its own
            return True
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 2 * tarfile.BLOCKSIZE, 0))
        return size % tarfile.BLOCKSIZE == 0 and not any(file.read())


def _unreadable(shard: str, error: Exception) -> UserError:
    reason = str(error.args[0]) if error.args else type(error).__name__
    return UserError(
        f"shard '{shard}' cannot be read ({reason}): fetch or pack it again, or leave it out of the pattern"
    )
