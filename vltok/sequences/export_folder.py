"""A folder that receives an export: whose it is, what stands in it, and how a new export takes the place of another.

```
codes/
  codes-000000.tar …  codes.index.npy  codes.json   what is whole
  .unfinished/   of the first export of a folder: run.json, a record for each finished shard, locks
  .replacing/    of one that takes another's place: the same, and the shards and pictures until all are whole
```

To take a place, the old manifest goes first, and the new one comes last; a process that is killed in between leaves
`.replacing/`, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import filelock
import numpy as np

from vltok.errors import UserError
from vltok.files import HELD_ENDING, acquire, alone_in, move, sha256_of, written_whole
from vltok.launchers import Share
from vltok.sequences.export_records import ShardRecord, pixels_of, records_of
from vltok.sequences.export_run import WantedExport, being_written, note_parts, parts_of, readable_run
from vltok.sequences.manifest import INDEX, MANIFEST, CodeManifest
from vltok.sequences.shards import CodeSample

_UNFINISHED, _REPLACING = ".unfinished", ".replacing"
_SHARD = re.compile(r"codes-\d{6,}\.(tar|parquet)")
_PICTURE = re.compile(r"\d{6,}\.png|\.\d{6,}\.png\..*")
_SECONDS_TO_CLAIM = 60.0


@final
class ExportFolder:
    """One process's claim to a folder.

    Args:
        folder: Which one.
        run: What is written.
        share: What this process writes; None where it writes no shards.
        pictures: Folders of numbered pictures that are written with the shards, by name.
        overwrite: Whether it takes the place of another export.
        grows: Whether it may take in an export of fewer pictures.

    Attributes:
        folder: Where everything goes.
        work: Where this run keeps what is not whole.

    Raises:
        UserError: The folder holds something else, or another process writes it.
        OSError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        run: WantedExport,
        share: Share | None,
        pictures: Mapping[str, Path],
        overwrite: bool,
        grows: bool,
    ) -> None:
        self.folder, self.work = folder, folder / _UNFINISHED
        self._run, self._pictures, self._share = run, dict(pictures), share
        self._from: CodeManifest | None = None
        self._lock: filelock.BaseFileLock | None = None
        self._made: list[Path] = []
        if not self.finished or not self._sound(overwrite):
            self._made = [place for place in (folder, *folder.parents) if not place.exists()]
            with alone_in(folder, _SECONDS_TO_CLAIM):
                self._claim(overwrite, grows)

    @property
    def finished(self) -> bool:
        """Whether the folder holds this run, whole."""
        manifest = self._manifest()
        return manifest is not None and WantedExport.of(manifest).alike(self._run)

    def whole(self, shard: int) -> bool:
        """Whether a shard is there, and what the manifest needs of it."""
        name = self._run.settings.name(shard)
        there = (self.folder / name).is_file() or (self._replaces and (self.work / name).is_file())
        return there and self._record_path(shard).is_file()

    def missing(self, shards: range) -> list[int]:
        """Those that are not whole; to list the folders is cheaper than to look for each."""
        there, noted = _names(self.folder), _names(self.work)
        if self._replaces:
            there |= noted
        names = ((shard, self._run.settings.name(shard), self._record_path(shard).name) for shard in shards)
        return [shard for shard, name, record in names if name not in there or record not in noted]

    @property
    def parts(self) -> int:
        """In how many parts the folder is written."""
        return parts_of(self.work)

    def record(self, shard: int) -> ShardRecord:
        """What is noted of a finished shard."""
        return ShardRecord.read(self._record_path(shard))

    def add(self, shard: int, record: ShardRecord) -> None:
        """Take in a shard that has been written to `work`: from here on it counts as whole."""
        if not self._replaces:
            move(self.work / record.shard.name, self.folder / record.shard.name)
        record.write(self._record_path(shard))

    def pictures(self, name: str) -> Path:
        """Where the pictures of a kind go."""
        return self.work / name if self._replaces and self._from is None else self._pictures[name]

    def grown_from(self, shard: int) -> tuple[list[CodeSample], int]:
        """The samples of a shard that the smaller export has, if it is that one's last and not full; and their pixels.

        Raises:
            UserError: The smaller export's shard is damaged.
        """
        old = self._from
        if old is None or shard != old.settings.shards[-1] or self.whole(shard):
            return [], 0
        samples = list(old.read_samples(self.folder, old.shards[shard]))
        return samples, pixels_of(old, len(samples))

    def put_in_place(self, manifest: CodeManifest, index: np.ndarray | None) -> None:
        """Put everything in its place, the manifest last. Given again after a kill, it goes on."""
        if self._replaces:
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for shard in manifest.shards:
                if (self.work / shard.name).is_file():
                    move(self.work / shard.name, self.folder / shard.name)
            names = {shard.name for shard in manifest.shards}
            for path in self.folder.iterdir():
                if _SHARD.fullmatch(path.name) and path.name not in names:
                    path.unlink()
            for name, place in self._pictures.items():
                if (self.work / name).is_dir():
                    shutil.rmtree(place, ignore_errors=True)
                    move(self.work / name, place)
                    with contextlib.suppress(OSError):  # empty where none were drawn
                        place.rmdir()
        (self.folder / INDEX).unlink(missing_ok=True)
        if index is not None:
            with written_whole(self.folder / INDEX, through=self.work) as path, path.open("wb") as file:
                np.save(file, index, allow_pickle=False)
            manifest = dataclasses.replace(manifest, index_sha256=sha256_of(self.folder / INDEX))
        manifest.write(self.folder, through=self.work)

    def clean_up(self) -> None:
        """Remove what a finished export needs no more; not what another one has begun that is to take its place."""
        self._release()
        shutil.rmtree(self.folder / _UNFINISHED, ignore_errors=True)
        begun = readable_run(self.folder / _REPLACING)
        if self._replaces or (begun is not None and begun.alike(self._run)):
            shutil.rmtree(self.folder / _REPLACING, ignore_errors=True)

    def leave(self) -> None:
        """Let another process go on; where nothing was finished, nothing is left."""
        if self._lock is None or not self._lock.is_locked:
            return
        self._release()
        if self.finished or any(self._written(self.work)):
            return
        with contextlib.suppress(OSError, UserError), alone_in(self.folder, _SECONDS_TO_CLAIM):
            if not being_written(self.work):
                self._discard(self.work)
        with contextlib.suppress(OSError):  # it holds something
            for place in self._made:
                place.rmdir()

    @property
    def _replaces(self) -> bool:
        return self.work.name == _REPLACING

    def _record_path(self, shard: int) -> Path:
        return self.work / f"codes-{shard:06d}.json"

    def _manifest(self) -> CodeManifest | None:
        """That of the export that the folder holds; None where there is none, or a damaged one."""
        with contextlib.suppress(UserError):
            return CodeManifest.read(self.folder)
        return None

    def _sound(self, overwrite: bool) -> bool:
        """Whether the finished export has all its shards, which it must where it is not to be overwritten."""
        try:
            CodeManifest.read(self.folder).check_shards(self.folder)
        except UserError:
            if not overwrite:
                raise
            (self.folder / _UNFINISHED).mkdir(exist_ok=True)  # the folder still says whose it is
            (self.folder / MANIFEST).unlink()
            return False
        return True

    def _claim(self, overwrite: bool, grows: bool) -> None:
        if self.finished:  # another process was quicker
            return
        replacing, unfinished = self.folder / _REPLACING, self.folder / _UNFINISHED
        manifest, ours = self._manifest(), self._run
        begun = readable_run(replacing) if overwrite else WantedExport.read(replacing)
        goes_on = begun is not None and begun.alike(ours)
        if manifest is not None and grows and WantedExport.of(manifest).grows_to(ours):
            self.work, self._from = replacing, manifest
            if not goes_on:
                manifest.check_shards(self.folder)
        elif goes_on:
            self.work = replacing
        elif (self.folder / MANIFEST).exists() or begun is not None:
            self._refuse_unless(overwrite, begun if manifest is None else WantedExport.of(manifest))
            self.work = replacing
        else:
            there = readable_run(unfinished) if overwrite else WantedExport.read(unfinished)
            if there is not None and there.alike(ours):
                self._join()
                return
            if there is not None and (being_written(unfinished) or any(self._written(unfinished))):
                self._refuse_unless(overwrite, there)
                self.work = replacing
        self._refuse_others()
        if (being_written(unfinished) and self._replaces) or (being_written(self.work) and not goes_on):
            raise UserError(f"another process is writing to {self.folder}: wait until it has ended")
        if not goes_on:
            self._discard(self.work)
            try:
                self._begin()
            except OSError:
                shutil.rmtree(self.work, ignore_errors=True)
                raise
        self._join()

    def _begin(self) -> None:
        """Say what is written, `run.json` last: without it, the rest does not count."""
        self.work.mkdir(parents=True)
        if self._from is not None:
            for shard, record in enumerate(records_of(self._from, self.folder)):
                if self._from.settings.places(shard) == self._run.settings.places(shard):
                    record.write(self._record_path(shard))
        elif self._replaces:
            for name in self._pictures:
                (self.work / name).mkdir()
        self._run.write(self.work)

    def _join(self) -> None:
        """Become one of those that write the folder."""
        share = self._share
        if share is None:
            return
        if share.parts != self.parts and being_written(self.work):
            raise UserError(
                f"--out {self.folder} is being written in {self.parts} parts, not {share.parts}: wait until those have "
                f"ended, or give one of them (--part …/{self.parts})"
            )
        try:
            self._lock = acquire(self.work / f"rank-{share.rank}.lock")
        except filelock.Timeout as error:
            # where the file system has no locks, the file of a process that was killed elsewhere stays
            held = f"; if none is, remove {error.lock_file}" if error.lock_file.endswith(HELD_ENDING) else ""
            who = share.name or f"rank {share.rank}"
            raise UserError(f"another process ({who}) is writing to {self.folder}{held}") from error
        note_parts(self.work, share.parts)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _refuse_unless(self, overwrite: bool, there: WantedExport | None) -> None:
        if overwrite:
            return
        if there is None:
            there = WantedExport.of(CodeManifest.read(self.folder))  # says what is damaged
        raise UserError(
            f"--out {self.folder} holds {there.difference(self._run)}: give the same command to go on with it, another "
            "folder, or --overwrite"
        )

    def _refuse_others(self) -> None:
        """See that nothing stands in the folders but what an export has written."""
        ours = {MANIFEST, INDEX, _UNFINISHED, _REPLACING}
        known = any((self.folder / name).exists() for name in (MANIFEST, _UNFINISHED, _REPLACING))
        for path in sorted(self.folder.iterdir()):
            if path.name not in ours and not (known and _SHARD.fullmatch(path.name)) and path.name[0] != ".":
                raise _others(self.folder, path.name)
        for place in self._pictures.values():
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                if not known or not _PICTURE.fullmatch(path.name):
                    raise _others(place, path.name)

    def _written(self, work: Path) -> Iterator[Path]:
        """The records of the shards that a run has finished itself."""
        for path in work.glob("codes-*.json"):
            if work.name == _UNFINISHED or any(work.glob(f"{path.stem}.[tp]*")):
                yield path

    def _discard(self, work: Path) -> None:
        """Remove a run that has finished nothing, or is to be forgotten."""
        if work.name == _UNFINISHED and readable_run(work) is not None:
            for place in self._pictures.values():
                shutil.rmtree(place, ignore_errors=True)
            if not (self.folder / MANIFEST).exists():
                for path in self.folder.iterdir():  # one that was put in place, and not noted any more
                    if _SHARD.fullmatch(path.name):
                        path.unlink()
        if work.is_dir():
            shutil.rmtree(work)


def run_within(folder: Path) -> WantedExport | None:
    """What a folder is being filled with, where that needs nothing but its shards; None where there is none.

    Raises:
        UserError: `run.json` is damaged, or pictures wait to be put in their place with the shards.
    """
    replacing = folder / _REPLACING
    if run := WantedExport.read(replacing):
        if any(path.is_dir() for path in replacing.iterdir()):
            raise UserError(f"{folder} is being replaced together with pictures: give the same command again")
        return run
    return WantedExport.read(folder / _UNFINISHED)


def _names(folder: Path) -> set[str]:
    """What stands in a folder; nothing where another process has removed it."""
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def _others(folder: Path, name: str) -> UserError:
    return UserError(f"--out {folder} holds other files (such as {name}): give an empty folder")
