"""What an export writes: when two are the same, and what a user did otherwise where they are not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import filelock

from vltok.arguments import fields_of
from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.files import acquire, written_whole
from vltok.sequences.manifest import VERSION, CodeManifest, ExportSettings, damaged, read_json
from vltok.sequences.plain import from_plain

_RUN, _PARTS = "run.json", "parts.json"
_OPTIONS = ("format", "shard_size", "batch_size", "precision")


@dataclass(frozen=True)
class WantedExport:
    """What is written.

    Attributes:
        spec: What the codes may be.
        settings: What the export follows from.
        classes: The names of the labels, or None.
        tokenizer_places: Where the tokenizer's bundle is: see `CodeManifest`.
    """

    spec: CodeSpec
    settings: ExportSettings
    classes: tuple[str, ...] | None
    tokenizer_places: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: CodeManifest) -> WantedExport:
        """What a finished export is one of; a manifest's spec has the grid of regions as well."""
        return cls(dataclasses.replace(manifest.spec, regions=None), manifest.settings, manifest.classes)

    def write(self, work: Path) -> None:
        """Note it in the folder through which it is written."""
        with written_whole(work / _RUN) as path:
            written = {"version": VERSION, **dataclasses.asdict(self), "spec": fields_of(self.spec)}
            path.write_text(json.dumps(written))

    @classmethod
    def read(cls, work: Path) -> WantedExport | None:
        """What is being written through a folder, or None where nothing is.

        Raises:
            UserError: `run.json` is damaged.
        """
        path = work / _RUN
        if not path.is_file():
            return None
        try:
            run = from_plain(cls, read_json(path), "")
            run.settings.check()
        except ValueError as error:
            raise damaged(path, error) from error
        return run

    def alike(self, other: WantedExport) -> bool:
        """Whether the same bytes follow from both."""
        spec = dataclasses.replace(other.spec, regions=self.spec.regions)
        return self.settings.alike(other.settings) and (self.spec, self.classes) == (spec, other.classes)

    def grows_to(self, other: WantedExport) -> bool:
        """Whether the other one is the same with more pictures."""
        pictures = other.settings.pictures
        more = dataclasses.replace(self, settings=dataclasses.replace(self.settings, pictures=pictures))
        return self.settings.pictures < pictures and more.alike(other)

    def difference(self, other: WantedExport) -> str:
        """What the other one is not, for a user who asks for it."""
        there, here = self.settings, other.settings
        if there.tokenizer != here.tokenizer:
            return f"the codes of another tokenizer ({there.tokenizer[:12]}…, not {here.tokenizer[:12]}…)"
        found = [
            f"--{name.replace('_', '-')} {getattr(there, name)}, not {getattr(here, name)}"
            for name in _OPTIONS
            if getattr(there, name) != getattr(here, name)
        ]
        if (there.input, there.pictures) != (here.input, here.pictures):
            # options that lead to the same input, such as another path to the same folder, are not to blame alone
            found += [
                f"{name} {_shown(there.options.get(name))}, not {_shown(here.options.get(name))}"
                for name in sorted({*there.options, *here.options})
                if there.options and there.options.get(name) != here.options.get(name)
            ]
        if found:
            return f"an export with {', '.join(found)}"
        if (there.input, there.pictures) != (here.input, here.pictures):
            count = "" if there.pictures == here.pictures else f" ({there.pictures}, not {here.pictures})"
            crops = "" if there.options else ", or of other crops of them (--data…, --split)"
            return f"the codes of other pictures{count}{crops}"
        if None not in (there.tf32, here.tf32) and there.tf32 != here.tf32:
            return "codes that were computed in another arithmetic"
        return "an export with other labels"


def readable_run(work: Path) -> WantedExport | None:
    """As `WantedExport.read`; None too where it is damaged."""
    with contextlib.suppress(UserError):
        return WantedExport.read(work)
    return None


def parts_of(work: Path) -> int:
    """In how many parts the run of a folder is written."""
    return int((work / _PARTS).read_text()) if (work / _PARTS).is_file() else 1


def note_parts(work: Path, parts: int) -> None:
    """Say in how many parts the run of a folder is written."""
    if parts != parts_of(work):
        with written_whole(work / _PARTS) as path:
            path.write_text(f"{parts}\n")


def being_written(work: Path) -> bool:
    """Whether a process is writing the run of a folder."""
    for path in work.glob("rank-*.lock"):
        try:
            lock = acquire(path)
        except filelock.Timeout:
            return True
        lock.release()
    return False


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
