"""`vltok.pack`: a folder of images becomes tar shards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import webdataset

from vltok.errors import UserError, check_seed, whole_number
from vltok.files import alone_in, check_folder, flush, move
from vltok.loading.pools import in_processes
from vltok.loading.skipping import Skipped, SkippedPictures
from vltok.paths import new_path, read_path
from vltok.pictures.decoding import CorruptPicture, decode
from vltok.pictures.embeddings import EmbeddingPlace
from vltok.pictures.finding import list_pictures
from vltok.pictures.folder import class_of, classes_of
from vltok.pictures.labels import CLASSES_FILE, read_class_names
from vltok.pictures.texts import TextPlace
from vltok.sequences.shards import to_npy

_DEFAULT_NAME = "shard-%06d.tar"
_UNFINISHED, _WHOLE, _PLAN = ".packing", ".packed", "plan.json"
_NUMBER = re.compile(r"%0?\d*d")


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote.

    Attributes:
        pattern: The path of the shards, with their number to be filled in.
        pictures: How many they hold.
        shards: How many shards there are.
        classes: How many classes the pictures have; None where they have none.
        megabytes: The size of all shards.
        corrupt: How many pictures could not be read, and were left out.
    """

    pattern: Path
    pictures: int
    shards: int
    classes: int | None
    megabytes: float
    corrupt: int


def pack(
    folder: str | os.PathLike,
    shards: str | os.PathLike,
    *,
    count: int = 10_000,
    size_limit: int = 1000,
    keep_order: bool = False,
    seed: int = 0,
    max_corrupt: float = 0.01,
    overwrite: bool = False,
    workers: int | None = None,
    texts: str | None = None,
    embeddings: str | None = None,
) -> Packed | None:
    """Write a folder of images as webdataset tar shards.

    The sub-folders of its first level are the classes, if every image lies in one. Files are stored as they are. The
    same folder gives the same bytes.

    Args:
        folder: Any tree of images.
        shards: A folder for the shards, or a pattern that ends in .tar, with a number as printf has it.
        count: Most pictures in a shard.
        size_limit: Most megabytes in a shard.
        keep_order: Keep the order of the folder; otherwise pictures are shuffled, as training wants its shards.
        seed: Sets the shuffled order.
        max_corrupt: Share of pictures that may be corrupt; they are left out.
        overwrite: Replace shards that are already there.
        workers: Processes that look for corrupt pictures; as many as there are cores, up to 16, by default.
        texts: Where texts that describe the pictures stand, which become `.txt` members: ``txt`` for `NAME.txt` beside
            `NAME.jpg`, or a file of JSON lines with `file_name` and `text`, such as ``metadata.jsonl`` or
            ``metadata.jsonl:caption``.
        embeddings: The ending of the files beside the pictures that hold their embeddings, which become members of that
            ending: ``npy`` for `NAME.npy` beside `NAME.jpg`, or one such as ``clip.npy``.

    Returns:
        What was written; None where the same call had packed all when it was killed, and it was only put in place.

    Raises:
        UserError: The folder holds no pictures, too many are corrupt, or the shards cannot be written where asked.
    """
    workers = min(os.cpu_count() or 1, 16) if workers is None else workers
    for option, value, least in (("--count", count, 1), ("--size-limit", size_limit, 1), ("--workers", workers, 0)):
        whole_number(option, value, least)
    check_seed("--seed", seed)
    folder, shards = str(read_path(folder)), str(new_path("SHARDS", shards))
    pattern = _pattern(shards)
    check_folder("SHARDS", pattern.parent)
    given = {
        **{"folder": folder, "shards": shards, "count": count, "size_limit": size_limit, "keep_order": keep_order},
        **{"seed": seed, "max_corrupt": max_corrupt, "overwrite": overwrite, "workers": workers, "texts": texts},
        **({} if embeddings is None else {"embeddings": embeddings}),
    }
    with alone_in(pattern.parent):
        place = _Place(pattern)
        if place.finish() == given:
            return None
        earlier = _shards_there(pattern)
        if earlier and not overwrite:
            raise UserError(f"{earlier[0]} is already there: give another place, or --overwrite")
        paths = list_pictures(folder, "FOLDER")
        classes = _classes(paths, pattern.parent)
        corrupt = SkippedPictures(max_corrupt, "--max-corrupt")
        text_of = None if texts is None else TextPlace.of(texts, "--texts", shards=False).of_folder(folder, paths)
        vectors = None if embeddings is None else EmbeddingPlace.of(embeddings, "--embeddings")
        samples = _samples(paths, classes)
        if not keep_order:
            samples = random.Random(seed).sample(samples, len(samples))

        # no shard takes its place before all are written: an error leaves nothing behind
        with place.unfinished() as unfinished:
            readable = _readable(folder, samples, corrupt, workers)
            limit = size_limit * 1_000_000
            described = partial(_described, folder, text_of, vectors)
            names, packed = _write(unfinished, pattern.name, readable, described, count, limit)
            if classes is not None:
                text = json.dumps(classes, indent=1, ensure_ascii=False) + "\n"
                # a folder's name need not be text: JSON can hold what UTF-8 cannot
                (unfinished / CLASSES_FILE).write_bytes(text.encode("utf-8", "backslashreplace"))
            size = sum((unfinished / name).stat().st_size for name in names) / 1e6
            place.commit([path.name for path in earlier], given)
        place.finish()
    found = None if classes is None else len({class_of(path) for path in paths})
    return Packed(pattern, packed, len(names), found, size, len(corrupt.keys))


@dataclass(frozen=True)
class _Place:
    """Where shards go all at once: a process that is killed in between leaves what the next one puts in place."""

    pattern: Path

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Path]:
        """A folder for shards that are not yet all whole; it is gone afterwards."""
        folder = self.pattern.parent / _UNFINISHED
        shutil.rmtree(folder, ignore_errors=True)  # what a killed process has left
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, earlier: Sequence[str], given: Mapping[str, Any]) -> None:
        """Say that all is whole, and which shards it replaces."""
        folder = self.pattern.parent / _UNFINISHED
        names = sorted(path.name for path in folder.iterdir())
        for name in names:
            flush(folder / name)
        plan = {"earlier": list(earlier), "names": names, "given": given}
        (folder / _PLAN).write_text(json.dumps(plan), encoding="utf-8")
        move(folder, self.pattern.parent / _WHOLE)

    def finish(self) -> dict[str, Any] | None:
        """Put what is whole in its place; what was given for it, or None where there is nothing.

        Raises:
            UserError: The folder of what is whole is none of `vltok pack`.
        """
        folder = self.pattern.parent / _WHOLE
        if not folder.is_dir():
            return None
        try:
            plan = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
            given, names, earlier = plan["given"], list(plan["names"]), list(plan["earlier"])
            if not all(name == CLASSES_FILE or (Path(name).name == name and name.endswith(".tar")) for name in names):
                raise ValueError("it names other files than shards")
            if not all(Path(name).name == name and name.endswith(".tar") for name in earlier):
                raise ValueError("it names other files than shards")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{folder}' is none of vltok pack's ({error}): remove it") from error
        for name in set(earlier) - set(names):
            (folder.parent / name).unlink(missing_ok=True)
        for name in names:
            if (folder / name).is_file():
                move(folder / name, folder.parent / name)
        shutil.rmtree(folder)
        return given


@dataclass(frozen=True)
class _Sample:
    key: str
    path: str
    label: int | None


def _pattern(shards: str) -> Path:
    """Where shards go: a path with one number to fill in."""
    path = Path(shards)
    numbers = _NUMBER.findall(path.name)
    if len(numbers) == 1 and path.name.count("%") == 1 and path.suffix == ".tar":
        return path
    if "%" in path.name or path.suffix == ".tar" or path.is_file():
        raise UserError(
            f"SHARDS '{shards}' must be a folder, or a pattern that ends in .tar and has one number, such as "
            "'out/train-%06d.tar'"
        )
    return path / _DEFAULT_NAME


def _shards_there(pattern: Path) -> list[Path]:
    """The shards of an earlier packing, which must not stay among the new ones."""
    before, after = _NUMBER.split(pattern.name)
    name = re.compile(re.escape(before) + r"\d+" + re.escape(after))
    return sorted(path for path in pattern.parent.glob("*.tar") if name.fullmatch(path.name))


def _classes(paths: Sequence[str], folder: Path) -> list[str] | None:
    """The names of the classes; those that shards beside these use already keep their numbers."""
    classes = classes_of(paths)
    earlier = read_class_names(folder)
    if classes is None or earlier is None:
        return classes
    others = sorted(set(classes) - set(earlier))
    if others:
        raise UserError(
            f"{folder / CLASSES_FILE} does not have the classes {', '.join(others[:5])}{' …' * (len(others) > 5)}: "
            "remove it if the shards beside it are no longer wanted, or give another place"
        )
    return earlier


def _samples(paths: Sequence[str], classes: Sequence[str] | None) -> list[_Sample]:
    labels: dict[str | None, int] = {name: index for index, name in enumerate(classes or ())}
    digits = max(len(str(len(paths) - 1)), 6)
    return [
        # the number makes keys unique and keeps the folder's order; a dot would end the key
        _Sample(
            f"{index:0{digits}d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', os.path.splitext(path)[0])}",
            path,
            labels.get(class_of(path)),
        )
        for index, path in enumerate(paths)
    ]


def _readable(
    folder: str, samples: Sequence[_Sample], corrupt: SkippedPictures, workers: int
) -> Iterator[tuple[_Sample, bytes]]:
    """The samples whose pictures can be read, with their files."""
    paths = [os.path.join(folder, sample.path) for sample in samples]
    for sample, path, reason in zip(samples, paths, in_processes(_what_is_wrong, paths, workers), strict=True):
        if reason is None:
            yield sample, Path(path).read_bytes()
        else:
            corrupt.add([Skipped(sample.path, reason)], len(samples))


def _write(
    folder: Path,
    pattern: str,
    readable: Iterable[tuple[_Sample, bytes]],
    described: Callable[[str], dict[str, bytes]],
    count: int,
    limit: int,
) -> tuple[list[str], int]:
    """Write shards to a folder; their names, and how many pictures they hold."""
    names: list[str] = []
    packed = room = size = 0
    with contextlib.ExitStack() as writers:
        for sample, file in readable:
            if room == 0 or size + len(file) > limit:
                writers.close()
                names.append(pattern % len(names))
                path = str(folder / names[-1])
                # names, times and owners that are always the same: so are the bytes
                writer = webdataset.TarWriter(path, user="", group="", mode=0o644, mtime=0, encoder=False)
                writers.enter_context(writer)
                room, size = count, 0
            extension = os.path.splitext(sample.path)[1].removeprefix(".").lower()
            label = {} if sample.label is None else {"cls": str(sample.label).encode()}
            size += writer.write({"__key__": sample.key, extension: file, **label, **described(sample.path)})
            room -= 1
            packed += 1
    if not names:
        raise UserError("FOLDER holds no picture that can be read, so there is nothing to pack")
    return names, packed


def _described(
    folder: str, text_of: Callable[[str], str | None] | None, vectors: EmbeddingPlace | None, path: str
) -> dict[str, bytes]:
    """The members of a picture's text and embedding."""
    members = {}
    text = None if text_of is None else text_of(path)
    if text is not None:
        members["txt"] = text.encode("utf-8")
    if vectors is not None:
        members[vectors.ending] = to_npy(vectors.of_file(folder, path))
    return members


def _what_is_wrong(path: str) -> str | None:
    try:
        decode(path)
    except CorruptPicture as error:
        return str(error)
    return None
