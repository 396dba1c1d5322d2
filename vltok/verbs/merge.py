"""`vltok.merge`: exports of one tokenizer as a single one, and the end of one that was written in parts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vltok.codes import CodeSpec
from vltok.errors import UserError, how_many
from vltok.evaluation.parts import check_whole
from vltok.files import check_folder
from vltok.io.places import places_of, resolve
from vltok.launchers import array_of
from vltok.paths import read_path
from vltok.sequences.export import CodeExport, unfinished_export
from vltok.sequences.joining import JoinedExports
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.shards import CodeSample, by_grid, codes_of
from vltok.sequences.statistics import CodeCounts
from vltok.verbs.counting import Progress, counted


@dataclass(frozen=True)
class Merged:
    """What `merge` gave.

    Attributes:
        folder: Where the shards are.
        manifest: What they hold.
    """

    folder: Path
    manifest: CodeManifest


def merge(
    folders: Sequence[str | os.PathLike],
    out: str | os.PathLike | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Join exports of one tokenizer into a single one, or see that one which was written in parts is whole.

    What is joined is what one export of all the pictures, in this order, would hold: its shards are cut as those of the
    first folder, its samples numbered through, its classes those of all by name. Killed and given again, the same
    command goes on. Of a single folder, the manifest is written where all parts are there; else it says which are not.

    Args:
        folders: Folders that `vltok tokenize` wrote: two or more, or one in parts.
        out: The folder that receives the joined shards and their `codes.json`.
        overwrite: Whether to replace another export in `out`, which stays until the new one is whole.
        progress: Is told how many sequences are done.

    Raises:
        UserError: Parts are missing, the exports do not go together or are damaged, or nothing can be written.
    """
    given = [read_path(folder) for folder in folders]
    if len(given) == 1:
        if out is not None:
            raise UserError("--out is for exports that are joined: name two folders or more, or leave --out out")
        return Merged(given[0], _finished(given[0]))
    if out is None:
        raise UserError("say where the joined export goes: --out FOLDER")
    folder = check_folder("--out", out)
    for each in given:
        if folder.resolve().is_relative_to(each.resolve()):
            raise UserError(f"--out '{folder}' is or lies in '{each}', which is joined: name another folder")
    joined = JoinedExports(given)
    run = joined.run
    places = [place for found in resolve(joined.tokenizer_places, given[0]) for place in places_of(found, folder)]
    with contextlib.closing(
        CodeExport(
            folder,
            run.spec,
            run.settings,
            run.classes,
            tokenizer_places=tuple(dict.fromkeys(places)),
            overwrite=overwrite,
        )
    ) as export:
        pending = export.pending()
        left = sum(len(export.pictures(shard)) for shard in pending)
        report = counted(progress, run.settings.pictures, run.settings.pictures - left)
        for shard in pending:
            samples = joined.samples(export.pictures(shard))
            # of pictures of several sizes nothing tells how many pixels each has: those of all count with the first
            pixels = joined.pixels if shard == 0 else 0
            counts = dataclasses.replace(_counted(samples, run.spec), pixels=pixels)
            export.write(shard, samples, counts, joined.skipped(export.pictures(shard)))
            report(len(export.pictures(shard)))
        manifest = export.finish()
    assert manifest is not None
    return Merged(folder, manifest)


def _counted(samples: Sequence[CodeSample], spec: CodeSpec) -> CodeCounts:
    return CodeCounts.total((CodeCounts.of(codes_of(alike), spec, 0) for alike in by_grid(samples)), spec)


def _finished(folder: Path) -> CodeManifest:
    """The manifest of a folder, which is written where all parts are there."""
    export = unfinished_export(folder)
    if export is None:
        check_whole(folder)
        manifest = CodeManifest.read(folder)
        manifest.check_shards(folder)
        return manifest
    found = export.finish()
    if found is None:
        missing = export.missing_parts()
        raise UserError(
            f"{folder} is not whole: {how_many(len(missing), 'part')} of {export.parts} must be given again, or still "
            f"run (--array={array_of(missing)})"
        )
    return found
