"""Write a folder of code shards so that nothing finished is ever lost: shard by shard, by any number of processes.

While it is being filled, the folder holds `.unfinished/`: what is being written (`run.json`), and for each finished
shard what the manifest will need of it. A shard appears under its name only when it is whole; the manifest appears
last. Processes need not speak to each other: each takes every n-th shard, and whichever sees all of them writes the
manifest. What takes the place of another export stands in `.replacing/` until all of it is whole: see `ExportFolder`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Int64

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.files import acquire, flush, sha256_of
from vltok.launchers import ALONE, Share
from vltok.loading.skipping import SkippedPicture
from vltok.sequences.export_folder import ExportFolder, run_within
from vltok.sequences.export_records import ShardRecord
from vltok.sequences.export_run import WantedExport
from vltok.sequences.manifest import CodeManifest, ExportSettings, Shard
from vltok.sequences.shards import CodeSample, codes_of, embedding_size, shard_format
from vltok.sequences.statistics import CodeCounts


@final
class CodeExport:
    """A folder of code shards that is being written.

    Args:
        folder: Where; it is made, or goes on from what a process that was killed has left.
        spec: What the codes may be.
        settings: What the export follows from.
        classes: The names of the labels, or None where they have none.
        share: What this process writes; None where it writes no shards, and only finishes what others have written.
        tokenizer_places: Where the tokenizer's bundle is: see `CodeManifest`.
        overwrite: Whether it takes the place of another export in the folder, which stays until this one is whole.
        grows: Whether it may take in an export of fewer pictures that is the same in all else.
        pictures: Folders of numbered pictures that are written with the shards, by name.

    Raises:
        UserError: The folder cannot be written, holds something else, or another process of this rank writes it.
    """

    def __init__(
        self,
        folder: Path,
        spec: CodeSpec,
        settings: ExportSettings,
        classes: Sequence[str] | None = None,
        share: Share | None = ALONE,
        tokenizer_places: Sequence[str] = (),
        *,
        overwrite: bool = False,
        grows: bool = False,
        pictures: Mapping[str, Path] | None = None,
    ) -> None:
        self._run = WantedExport(spec, settings, None if classes is None else tuple(classes), tuple(tokenizer_places))
        self._share = share
        self._format = shard_format(settings.format)
        self._first: Sequence[CodeSample] = ()
        with _clear_errors(folder):
            self._place = ExportFolder(folder, self._run, share, pictures or {}, overwrite, grows)

    @property
    def settings(self) -> ExportSettings:
        """What the export follows from."""
        return self._run.settings

    @property
    def shards(self) -> range:
        """The numbers of all shards."""
        return self.settings.shards

    @property
    def mine(self) -> range:
        """The numbers of this process's shards, whole or not."""
        return range(0) if self._share is None else self._share.of(self.shards)

    def pictures(self, shard: int) -> range:
        """The places in the input of the pictures of a shard."""
        return self.settings.places(shard)

    def folder_of(self, name: str) -> Path:
        """Where the pictures of a kind go: to their place, or where they wait until all is whole."""
        return self._place.pictures(name)

    @property
    def finished(self) -> bool:
        """Whether the manifest is there: nothing is left to do."""
        return self._place.finished

    def pending(self) -> list[int]:
        """The shards of this process that are not yet whole."""
        missing = self._place.missing(self.mine)
        return [] if self.finished else missing

    @property
    def parts(self) -> int:
        """In how many parts the folder is written."""
        return self._place.parts

    def missing_parts(self) -> tuple[int, ...]:
        """The parts, from 1, of which a shard is not yet whole."""
        parts = self._place.parts
        missing = {shard % parts + 1 for shard in self._place.missing(self.shards)}
        return () if self.finished else tuple(sorted(missing))

    def kept(self, shard: int) -> tuple[list[CodeSample], CodeCounts]:
        """The first samples of a shard, which an export of fewer pictures has already, and what is counted over them.

        Raises:
            UserError: The shard that holds them is damaged.
        """
        samples, pixels = self._place.grown_from(shard)
        if not samples:
            return [], CodeCounts.none(self._run.spec)
        return samples, CodeCounts.of(codes_of(samples), self._run.spec, pixels)

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
            UserError: The disk is full, the folder cannot be written, or embeddings are not of one size.
        """
        self._first = (self._first or samples)[:1]
        size_of_embeddings = embedding_size([*self._first, *samples])
        unfinished = self._place.work / self.settings.name(shard)
        with _clear_errors(self._place.folder):
            try:
                places = self._format.write(unfinished, samples, self._run.spec.codebook_size)
                flush(unfinished)
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
            lengths = [len(sample.ids) for sample in samples]
            size, digest = unfinished.stat().st_size, sha256_of(unfinished)
            record = ShardRecord(
                shard=Shard(unfinished.name, len(samples), sum(lengths), size, digest),
                skipped=tuple(skipped),
                labelled=all(sample.label is not None for sample in samples),
                grids=tuple(sorted({sample.grains.shape for sample in samples if sample.grains is not None})),
                counts=counts.to_json(),
                index=None if places is None else tuple(_index_rows(places, samples)),
                described=any(sample.text is not None for sample in samples),
                embedding_size=size_of_embeddings,
            )
            self._place.add(shard, record)

    def finish(self) -> CodeManifest | None:
        """Write the manifest once all shards are whole; None while other processes still write theirs.

        Raises:
            UserError: No picture could be read, the disk is full, or the folder cannot be written.
        """
        with _clear_errors(self._place.folder):
            try:
                if not self.finished and not self._put_in_place():
                    return None
            except FileNotFoundError:  # another process has finished meanwhile, and cleaned up
                if not self.finished:
                    raise
            self._place.clean_up()
            return CodeManifest.read(self._place.folder)

    def _put_in_place(self) -> bool:
        """Write the manifest, unless another process does or has; False while shards are missing."""
        lock = acquire(self._place.work / "finish.lock", seconds=-1)
        try:
            if not self.finished:
                if self._place.missing(self.shards):
                    return False
                self._place.put_in_place(*self._gather())
        finally:
            lock.release()
        return True

    def close(self) -> None:
        """Let another process go on; where nothing was finished, nothing is left."""
        self._place.leave()

    def _gather(self) -> tuple[CodeManifest, np.ndarray | None]:
        """Put together what is known of each shard: the manifest, its index's checksum apart, and the index."""
        spec = self._run.spec
        records = [self._place.record(shard) for shard in self.shards]
        counts = CodeCounts.total((CodeCounts.from_json(record.counts, spec) for record in records), spec)
        if not any(record.shard.samples for record in records):
            raise UserError(f"none of the {self.settings.pictures} pictures could be read: there are no codes")
        sizes = {record.embedding_size for record in records if record.shard.samples}
        if len(sizes) > 1:
            told = " and of ".join(str(size or "no") for size in sorted(sizes, key=lambda size: size or 0))
            raise UserError(f"shards have embeddings of {told} numbers: mend them, and write all with --overwrite")
        grids = {grid for record in records for grid in record.grids}
        rows = [row for record in records for row in record.index or ()]
        # where all have one grid, the manifest tells it; shards of before do not tell theirs
        columns = 3 if len(grids) < 2 else min(map(len, rows), default=3)
        manifest = CodeManifest(
            spec=dataclasses.replace(spec, regions=grids.pop()) if len(grids) == 1 else spec,
            settings=self.settings,
            shards=tuple(record.shard for record in records),
            skipped=tuple(picture for record in records for picture in record.skipped),
            labelled=all(record.labelled for record in records),
            classes=self._run.classes,
            statistics=counts.statistics(spec),
            index_sha256=None,
            tokenizer_places=self._run.tokenizer_places,
            described=any(record.described for record in records),
            embedding_size=sizes.pop(),
        )
        index = np.array([row[:columns] for row in rows], dtype=np.int64)
        return manifest, None if records[0].index is None else index


def _index_rows(places: Int64[np.ndarray, "b 2"], samples: Sequence[CodeSample]) -> Iterator[tuple[int, ...]]:
    """What a record tells of where each sample stands, and how large it is."""
    for (start, size), sample in zip(places.tolist(), samples, strict=True):
        yield (start, size, len(sample.ids), *(() if sample.grains is None else sample.grains.shape))


def unfinished_export(folder: Path) -> CodeExport | None:
    """The export with which a folder is being filled, only to be finished; None where there is none.

    Raises:
        UserError: What is noted of it is damaged, or pictures are drawn with it.
    """
    run = run_within(folder)
    if run is None:
        return None
    return CodeExport(folder, run.spec, run.settings, run.classes, None, run.tokenizer_places)


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
