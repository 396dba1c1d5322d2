"""`vltok pack`: a folder of images becomes tar shards."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import webdataset
from jsonargparse import ArgumentParser, Namespace

from vltok.errors import UserError, check_seed
from vltok.files import alone_in, check_folder
from vltok.io.recipes import parse_options
from vltok.loading.skipping import Skipped, SkippedPictures
from vltok.pictures.decoding import CorruptPicture, decode
from vltok.pictures.folder import class_of, classes_of, list_pictures
from vltok.pictures.tars import CLASSES_FILE, class_names

_DEFAULT_NAME = "shard-%06d.tar"
_UNFINISHED, _WHOLE, _PLAN = ".packing", ".packed", "plan.json"
_NUMBER = re.compile(r"%0?\d*d")


def run(arguments: list[str]) -> None:
    """Pack a folder, and print one line that says what was written.

    Raises:
        UserError: The folder holds no pictures, too many are corrupt, or the shards cannot be written where asked.
    """
    given = parse_options(_parser(), arguments)
    for option, value in (("--count", given.count), ("--size-limit", given.size_limit), ("--workers", given.workers)):
        if value < (0 if option == "--workers" else 1):
            raise UserError(f"{option} must be at least {0 if option == '--workers' else 1}, not {value}")
    check_seed("--seed", given.seed)
    pattern = _pattern(given.shards)
    check_folder("SHARDS", pattern.parent)
    with alone_in(pattern.parent):
        _pack(given, pattern)


def _pack(given: Namespace, pattern: Path) -> None:
    place = _Place(pattern)
    if place.finish() == vars(given):
        print(f"put in place what the same command had packed when it was killed, at {pattern}")
        return
    earlier = _shards_there(pattern)
    if earlier and not given.overwrite:
        raise UserError(f"{earlier[0]} is already there: give another place, or --overwrite")
    paths = list_pictures(given.folder, "FOLDER")
    classes = _classes(paths, pattern.parent)
    corrupt = SkippedPictures(given.max_corrupt, "--max-corrupt")
    samples = _samples(paths, classes)
    if not given.keep_order:
        samples = random.Random(given.seed).sample(samples, len(samples))

    # no shard takes its place before all are written: an error leaves nothing behind
    with place.unfinished() as folder:
        readable = _readable(given.folder, samples, corrupt, given.workers)
        shards, packed = _write(folder, pattern.name, readable, given.count, given.size_limit * 1_000_000)
        if classes is not None:
            text = json.dumps(classes, indent=1, ensure_ascii=False) + "\n"
            (folder / CLASSES_FILE).write_text(text, encoding="utf-8")
        size = sum((folder / name).stat().st_size for name in shards) / 1e6
        place.commit([path.name for path in earlier], vars(given))
    place.finish()

    labels = "without classes" if classes is None else f"of {len({class_of(path) for path in paths})} classes"
    skipped = f"; skipped {len(corrupt.keys)} corrupt" if corrupt.keys else ""
    print(f"packed {packed} pictures {labels} into {len(shards)} shards ({size:.1f} MB) at {pattern}{skipped}")


@dataclass(frozen=True)
class _Place:
    """Where shards go all at once: a process that is killed in between leaves what the next one puts in place.

    Attributes:
        pattern: That of the shards.
    """

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
            with (folder / name).open("rb") as file:
                os.fsync(file.fileno())
        plan = {"earlier": list(earlier), "names": names, "given": given}
        (folder / _PLAN).write_text(json.dumps(plan), encoding="utf-8")
        folder.rename(self.pattern.parent / _WHOLE)

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
                (folder / name).replace(folder.parent / name)
        shutil.rmtree(folder)
        return given


@dataclass(frozen=True)
class _Sample:
    key: str
    path: str
    label: int | None


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="vltok pack",
        exit_on_error=False,
        description="Write a folder of images as webdataset tar shards. The sub-folders of its first level are the "
        "classes, if every image lies in one. Files are stored as they are. The same folder gives the same bytes.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="any tree of images")
    parser.add_argument(
        "shards",
        metavar="SHARDS",
        help="a folder for the shards, or a pattern that ends in .tar, with a number as printf has it",
    )
    parser.add_argument("--count", type=int, default=10_000, help="most pictures in a shard")
    parser.add_argument("--size-limit", type=int, default=1000, help="most megabytes in a shard")
    parser.add_argument(
        "--keep-order",
        action="store_true",
        help="keep the order of the folder; otherwise pictures are shuffled, as training wants its shards",
    )
    parser.add_argument("--seed", type=int, default=0, help="sets the shuffled order")
    parser.add_argument(
        "--max-corrupt",
        type=float,
        default=0.01,
        help="share of pictures that may be corrupt; they are left out",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace shards that are already there")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, 16),
        help="processes that look for corrupt pictures",
    )
    return parser


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
    earlier = class_names(str(folder / "_"))
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
    labels = {name: index for index, name in enumerate(classes or ())}
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
    with contextlib.ExitStack() as stack:
        look: Callable[..., Iterable[str | None]] = map
        if workers > 1:
            # unlike a pool of multiprocessing, it does not wait for a process that was killed
            # Ctrl-C reaches them, too, but it is this process that ends them
            pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
            stack.callback(pool.shutdown, cancel_futures=True)
            look = functools.partial(pool.map, chunksize=16)
        try:
            for sample, path, reason in zip(samples, paths, look(_what_is_wrong, paths), strict=True):
                if reason is None:
                    yield sample, Path(path).read_bytes()
                else:
                    corrupt.add([Skipped(sample.path, reason)], len(samples))
        except BrokenProcessPool as error:
            raise UserError(
                "a worker that looks for corrupt pictures was killed, as happens where memory runs out: lower --workers"
            ) from error


def _write(
    folder: Path, pattern: str, readable: Iterable[tuple[_Sample, bytes]], count: int, limit: int
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
            size += writer.write({"__key__": sample.key, extension: file, **label})
            room -= 1
            packed += 1
    if not names:
        raise UserError("FOLDER holds no picture that can be read, so there is nothing to pack")
    return names, packed


def _what_is_wrong(path: str) -> str | None:
    try:
        decode(path)
    except CorruptPicture as error:
        return str(error)
    return None
