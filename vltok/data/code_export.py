"""Write a folder of code shards so that nothing finished is ever lost: shard by shard, by any number of processes.

While it is being filled, the folder holds `.unfinished/`: what is being written (`run.json`), and for each finished
shard what the manifest will need of it. A shard appears under its name only when it is whole; the manifest appears
last. Processes need not speak to each other: each takes every n-th shard, and whichever sees all of them writes the
manifest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import filelock
import numpy as np

from vltok.codes import CodeSpec
from vltok.data.code_manifest import INDEX, MANIFEST, CodeManifest, ExportSettings, Shard, SkippedPicture
from vltok.data.code_shards import CodeSample, shard_format
from vltok.data.code_statistics import CodeCounts
from vltok.errors import UserError
from vltok.files import sha256_of, written_whole

_UNFINISHED = ".unfinished"


@final
class CodeExport:
    """A folder of code shards that is being written.

    Args:
        folder: Where; it is made, or goes on from what a process that was killed has left.
        spec: What the codes may be.
        settings: What the export follows from.
        classes: The names of the labels, or None where they have none.
        rank: Which of the processes that write the folder this is.
        world_size: How many processes write it.
        tokenizer_places: Where the tokenizer's bundle is: see `CodeManifest`.

    Raises:
        UserError: The folder cannot be written, holds something else, or another process of this rank writes it.
    """

    def __init__(
        self,
        folder: Path,
        spec: CodeSpec,
        settings: ExportSettings,
        classes: Sequence[str] | None = None,
        rank: int = 0,
        world_size: int = 1,
        tokenizer_places: Sequence[str] = (),
    ) -> None:
        self._folder, self._spec, self._settings = folder, spec, settings
        self._classes = None if classes is None else tuple(classes)
        self._rank, self._world_size = rank, world_size
        self._tokenizer_places = tuple(tokenizer_places)
        self._format = shard_format(settings.format)
        self._work = folder / _UNFINISHED
        self._lock = filelock.FileLock(self._work / f"rank-{rank}.lock")
        with _clear_errors(folder):
            self._claim()

    @property
    def settings(self) -> ExportSettings:
        """What the export follows from."""
        return self._settings

    @property
    def shards(self) -> range:
        """The numbers of all shards."""
        return range(-(-self._settings.pictures // self._settings.shard_size))

    def pictures(self, shard: int) -> range:
        """The places in the input of the pictures of a shard."""
        start = shard * self._settings.shard_size
        return range(start, min(start + self._settings.shard_size, self._settings.pictures))

    @property
    def finished(self) -> bool:
        """Whether the manifest is there: nothing is left to do."""
        return (self._folder / MANIFEST).is_file()

    def pending(self) -> list[int]:
        """The shards of this process that are not yet whole."""
        if self.finished:
            return []
        return [shard for shard in self.shards[self._rank :: self._world_size] if not self._whole(shard)]

    def write(
        self, shard: int, samples: Sequence[CodeSample], counts: CodeCounts, skipped: Sequence[SkippedPicture] = ()
    ) -> None:
        """Write a shard: it is there whole, or not at all.

        Args:
            shard: Its number.
            samples: The codes of its pictures, in the order of the input.
            counts: What is counted over them.
            skipped: Those of its pictures that could not be read.

        Raises:
            UserError: The disk is full, or the folder cannot be written.
        """
        name = self._name(shard)
        unfinished = self._work / name
        with _clear_errors(self._folder):
            try:
                places = self._format.write(unfinished, samples, self._spec.codebook_size)
                with unfinished.open("rb") as file:
                    os.fsync(file.fileno())
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
            lengths = [len(sample.ids) for sample in samples]
            description = Shard(name, len(samples), sum(lengths), unfinished.stat().st_size, sha256_of(unfinished))
            index = None if places is None else np.column_stack([places, np.array(lengths, dtype=np.int64)]).tolist()
            grids = {sample.grains.shape for sample in samples if sample.grains is not None}
            unfinished.replace(self._folder / name)
            # from here on the shard counts as whole
            _write_json(
                self._record_path(shard),
                {
                    "shard": dataclasses.asdict(description),
                    "skipped": [dataclasses.asdict(picture) for picture in skipped],
                    "labelled": all(sample.label is not None for sample in samples),
                    "grids": sorted(grids),
                    "counts": counts.to_json(),
                    "index": index,
                },
            )

    def finish(self) -> CodeManifest | None:
        """Write the manifest once all shards are whole; None while other processes still write theirs.

        Raises:
            UserError: No picture could be read, the disk is full, or the folder cannot be written.
        """
        with _clear_errors(self._folder):
            with filelock.FileLock(self._work / "finish.lock"):
                if not self.finished:
                    if not all(self._whole(shard) for shard in self.shards):
                        return None
                    self._gather().write(self._folder, through=self._work)
            self._lock.release()
            shutil.rmtree(self._work, ignore_errors=True)
            return CodeManifest.read(self._folder)

    def close(self) -> None:
        """Let another process go on."""
        self._lock.release()

    def _claim(self) -> None:
        """See that the folder is ours to write."""
        run = {
            "spec": dataclasses.asdict(self._spec),
            "settings": dataclasses.asdict(self._settings),
            "classes": self._classes,
        }
        # before anything is made: what was there stays
        found = sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []
        if self.finished:
            manifest = CodeManifest.read(self._folder)
            there = dataclasses.asdict(manifest)
            # the manifest's spec has the grid of regions as well
            there["spec"] = {**there["spec"], "regions": None}
            self._compare(there, {**run, "spec": {**run["spec"], "regions": None}})
            manifest.check_shards(self._folder)
            return
        if (self._work / "run.json").is_file():
            self._compare(json.loads((self._work / "run.json").read_text()), run)
        elif set(found) - {_UNFINISHED}:
            raise UserError(f"--out {self._folder} holds other files (such as {found[0]}): give an empty folder")
        self._work.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise UserError(f"another process (rank {self._rank}) is writing to {self._folder}") from error
        if not (self._work / "run.json").is_file():
            _write_json(self._work / "run.json", run)

    def _compare(self, there: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        there, run = json.loads(json.dumps([there, run]))  # tuples become lists on both sides
        theirs, ours = there["settings"]["tokenizer"], run["settings"]["tokenizer"]
        if theirs != ours:
            raise UserError(
                f"--out {self._folder} holds the codes of another tokenizer ({theirs[:12]}…, not {ours[:12]}…): "
                "give another folder"
            )
        for key, value in run["settings"].items():
            if there["settings"][key] != value and key == "input":
                raise UserError(
                    f"--out {self._folder} holds the codes of other pictures, or of other crops of them (--data…, "
                    "--split): give the same command to go on with it, or another folder"
                )
            if there["settings"][key] != value:
                raise UserError(
                    f"--out {self._folder} holds an export with {key} {there['settings'][key]}, not {value}: "
                    "give the same command to go on with it, or another folder"
                )
        if (there["spec"], there["classes"]) != (run["spec"], run["classes"]):
            raise UserError(f"--out {self._folder} holds an export with other labels: give another folder")

    def _gather(self) -> CodeManifest:
        """Put together what is known of each shard."""
        shards, grids, skipped, labelled, index = [], set(), [], True, []
        counts = CodeCounts.none(self._spec)
        for shard in self.shards:
            record = json.loads(self._record_path(shard).read_text())
            shards.append(Shard(**record["shard"]))
            grids |= {tuple(grid) for grid in record["grids"]}
            skipped += [SkippedPicture(**picture) for picture in record["skipped"]]
            labelled &= record["labelled"]
            counts += CodeCounts.from_json(record["counts"], self._spec)
            if record["index"] is not None:
                index.append(np.array(record["index"], dtype=np.int64).reshape(-1, 3))
        if not any(shard.samples for shard in shards):
            raise UserError(f"none of the {self._settings.pictures} pictures could be read: there are no codes")
        if index:
            with written_whole(self._folder / INDEX, through=self._work) as path, path.open("wb") as file:
                np.save(file, np.concatenate(index), allow_pickle=False)
        return CodeManifest(
            spec=dataclasses.replace(self._spec, regions=grids.pop()) if len(grids) == 1 else self._spec,
            settings=self._settings,
            shards=tuple(shards),
            skipped=tuple(skipped),
            labelled=labelled,
            classes=self._classes,
            statistics=counts.statistics(self._spec),
            index_sha256=sha256_of(self._folder / INDEX) if index else None,
            tokenizer_places=self._tokenizer_places,
        )

    def _name(self, shard: int) -> str:
        return f"codes-{shard:06d}{self._format.suffix}"

    def _record_path(self, shard: int) -> Path:
        return self._work / f"codes-{shard:06d}.json"

    def _whole(self, shard: int) -> bool:
        return self._record_path(shard).is_file() and (self._folder / self._name(shard)).is_file()


def _write_json(path: Path, values: Any) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(values))


@contextlib.contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    """Say what a user can do about a failure to write."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {folder} is full: finished shards stay; free space and give the same command to go on"
            ) from error
        raise UserError(f"cannot write to --out {folder}: {error.strerror or error}") from error
