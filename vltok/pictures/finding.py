"""The pictures below a folder, and what is left out of them: the same for everything that reads folders."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vltok.errors import UserError
from vltok.pictures.formats import EXTENSIONS, ending_of, is_hidden, is_picture, left_out, remedy

_HELD_OUT = ("val", "valid", "validation", "test", "dev")


@dataclass(frozen=True)
class FoundPictures:
    """What lies below a folder.

    Attributes:
        paths: The relative paths of its pictures, with forward slashes, sorted.
        left_out: How many files may be pictures to their owner, but cannot be read, by ending.
        repeated: Links to pictures that are among `paths` already.
        closed: Folders that cannot be looked into, and links to none, and why.
        empty: Folders right below it that hold no picture, where all pictures lie in others of them.
    """

    paths: tuple[str, ...]
    left_out: dict[str, int]
    repeated: tuple[str, ...]
    closed: dict[str, str]
    empty: tuple[str, ...] = ()

    @property
    def remark(self) -> str:
        """What is left out, and what helps, in one line; empty where nothing is."""
        said = [
            f"{count} {f'{ending} ' if ending else ''}{'files' if count > 1 else 'file'} left out: {remedy(ending)}"
            for ending, count in self.left_out.items()
        ]
        if self.repeated:
            said.append(
                f"links to pictures that are there already left out: {len(self.repeated)} ({self.repeated[0]} …)"
            )
        said += [f"'{folder}' left out: {reason}" for folder, reason in list(self.closed.items())[:3]]
        return "; ".join(said)

    @property
    def missing_classes(self) -> str:
        """What to say of folders without a picture among those of classes."""
        more = " …" * (len(self.empty) > 3)
        named = ", ".join(map(repr, self.empty[:3]))
        return f"no picture lies in {named}{more}: no class is made of it" if self.empty else ""


def find_pictures(root: str | os.PathLike) -> FoundPictures:
    """Look for pictures in a folder and those below it.

    Hidden files and folders do not count (`is_hidden`). Links are followed; each picture counts once, under the path
    without a link, if there is one. Links to the folder itself or one above it are not followed.
    """
    real_root = os.path.realpath(root)
    paths: list[str] = []
    others: Counter[str] = Counter()
    closed: dict[str, str] = {}
    top: list[str] = []
    folders = [("", real_root)]
    linked_folders: list[tuple[str, str]] = []
    linked_files: list[tuple[str, str]] = []
    seen = set()

    while folders or linked_folders:
        here, real = folders.pop() if folders else linked_folders.pop()
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(real) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            closed[here or os.fspath(root)] = error.strerror or str(error)
            continue
        for entry in found:
            path = f"{here}/{entry.name}" if here else entry.name
            if is_hidden(entry.name):
                continue
            if _is_folder(entry):
                target = os.path.realpath(entry.path)
                if not here:
                    top.append(path)
                if not entry.is_symlink():
                    folders.append((path, target))
                elif not f"{real_root}{os.sep}".startswith(f"{target}{os.sep}"):
                    linked_folders.append((path, target))
            elif is_picture(entry.name):
                if entry.is_symlink():
                    linked_files.append((path, os.path.realpath(entry.path)))
                else:
                    seen.add(entry.path)
                    paths.append(path)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                closed[path] = "the link leads nowhere"
            elif left_out(entry.name) or ending_of(entry.name) == ".cls":
                others[ending_of(entry.name)] += 1
        linked_folders.sort(reverse=True)  # the first by name is the next

    repeated: list[str] = []
    for path, real in sorted(linked_files):
        (repeated if real in seen else paths).append(path)
        seen.add(real)
    full = {path.partition("/")[0] for path in paths if "/" in path}
    classes = all("/" in path for path in paths)
    empty = sorted(set(top) - full - closed.keys()) if paths and classes else ()
    return FoundPictures(tuple(sorted(paths)), dict(others.most_common()), tuple(repeated), closed, tuple(empty))


def list_pictures(root: str | os.PathLike, key: str) -> list[str]:
    """The relative paths of the pictures below a folder: see `find_pictures`. A warning says what is left out.

    Args:
        root: The folder.
        key: What the user names it by.

    Raises:
        UserError: There is no such folder, or it holds no picture.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{key} '{root}' {what}: give a folder of pictures")
    found = find_pictures(root)
    if not found.paths:
        endings = " ".join(sorted(EXTENSIONS))
        why = f" ({found.remark})" if found.remark else ""
        raise UserError(f"{key} '{root}' holds no picture{why}: give a folder with files that end in one of {endings}")
    for remark in (found.remark, found.missing_classes, splits_remark(found.paths, key, root)):
        if remark:
            warnings.warn(f"{key} '{root}': {remark}", stacklevel=2)
    return list(found.paths)


def splits_remark(paths: Sequence[str], key: str, root: str | os.PathLike) -> str:
    """What to give instead of a folder that holds the pictures of training and others, each in a folder."""
    first = {path.partition("/")[0]: None for path in paths if "/" in path}
    train = next((name for name in first if name.lower() in ("train", "training")), None)
    others = [name for name in first if name.lower() in _HELD_OUT]
    if train is None or not others:
        return ""
    held_out = f"{Path(root, others[0])}"
    return (
        f"'{train}' and '{others[0]}' count as classes, and the pictures of both as one set: give {key} "
        f"'{Path(root, train)}', and "
        + (f"pack '{held_out}' by itself" if key == "FOLDER" else f"data.val_root '{held_out}'")
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that go round in circles
        return False
