"""Exports of one tokenizer, read one after another as if their pictures had been the input of a single one."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

from vltok.errors import UserError
from vltok.loading.skipping import SkippedPicture
from vltok.sequences.export_run import WantedExport
from vltok.sequences.manifest import CodeManifest, ExportSettings
from vltok.sequences.shards import CodeSample

#: The options that codes follow from, besides the settings.
_OPTIONS = ("--rate", "--compile")


@final
class JoinedExports:
    """Finished exports, one after another.

    Labels count by the names of their classes: two exports may number them otherwise.

    Args:
        folders: Where they are, at least two.

    Attributes:
        run: What the joined export is; its shards are cut as those of the first one.
        tokenizer_places: Where the tokenizer's bundle was, as seen from the first folder.
        pixels: The pixels of all pictures.

    Raises:
        UserError: A folder holds no whole export, or they do not go together.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        manifests = [CodeManifest.read(folder) for folder in folders]
        for folder, manifest in zip(folders, manifests, strict=True):
            manifest.check_shards(folder)
        _check_alike(folders, manifests)
        classes = _all_classes(folders, manifests)
        self._parts = list(zip(folders, manifests, strict=True))
        self._starts = list(itertools.accumulate((each.settings.pictures for each in manifests), initial=0))
        numbers = {name: number for number, name in enumerate(classes or ())}
        self._labels = [
            None if classes is None or each.classes is None else [numbers[name] for name in each.classes]
            for each in manifests
        ]
        self._read: tuple[tuple[int, int] | None, list[CodeSample]] = (None, [])
        self._skipped = [
            dataclasses.replace(picture, index=picture.index + start)
            for start, each in zip(self._starts, manifests, strict=False)
            for picture in each.skipped
        ]
        spec = dataclasses.replace(manifests[0].spec, regions=None)
        self.run = WantedExport(spec, _joined_settings([each.settings for each in manifests]), classes)
        self.tokenizer_places = manifests[0].tokenizer_places
        self.pixels = sum(each.statistics["pixels"] for each in manifests)

    def samples(self, places: range) -> list[CodeSample]:
        """The samples of pictures at some consecutive places of the joined input.

        Raises:
            UserError: A shard is damaged.
        """
        found = []
        for part, own in self._within(places):
            size = self._parts[part][1].settings.shard_size
            for shard in range(own.start // size, -(-own.stop // size)):
                found += [self._moved(part, sample) for sample in self._shard(part, shard) if sample.index in own]
        return found

    def skipped(self, places: range) -> list[SkippedPicture]:
        """Those of the pictures at some places that could not be read."""
        first, end = (bisect.bisect_left(self._skipped, end, key=_index) for end in (places.start, places.stop))
        return self._skipped[first:end]

    def _within(self, places: range) -> Iterator[tuple[int, range]]:
        """The exports in which places lie, and which of their own places these are."""
        for part, (start, end) in enumerate(itertools.pairwise(self._starts)):
            own = range(max(places.start, start) - start, min(places.stop, end) - start)
            if own:
                yield part, own

    def _shard(self, part: int, shard: int) -> list[CodeSample]:
        """The samples of a shard; the last one is kept, for its end may belong to the next piece."""
        if self._read[0] != (part, shard):
            folder, manifest = self._parts[part]
            self._read = ((part, shard), list(manifest.read_samples(folder, manifest.shards[shard])))
        return self._read[1]

    def _moved(self, part: int, sample: CodeSample) -> CodeSample:
        """A sample at its place in the whole, under the whole's classes."""
        labels, label = self._labels[part], sample.label
        if labels is not None and label is not None:
            if not 0 <= label < len(labels):
                raise UserError(f"the codes of '{sample.key}' in {self._parts[part][0]} have label {label}: no class")
            label = labels[label]
        return dataclasses.replace(sample, index=sample.index + self._starts[part], label=label)


def _index(picture: SkippedPicture) -> int:
    return picture.index


def _check_alike(folders: Sequence[Path], manifests: Sequence[CodeManifest]) -> None:
    first = WantedExport.of(manifests[0])
    for folder, manifest in zip(folders[1:], manifests[1:], strict=True):
        there = WantedExport.of(manifest)
        # of other pictures, and cut otherwise, it may be
        own = {name: getattr(first.settings, name) for name in ("format", "shard_size", "batch_size", "pictures")}
        alike = dataclasses.replace(there.settings, **own, input=first.settings.input, options=first.settings.options)
        there = WantedExport(there.spec, alike, first.classes)
        if not there.alike(first):
            raise UserError(f"'{folder}' holds {there.difference(first)} as '{folders[0]}': they cannot be joined")
        if manifest.embedding_size != manifests[0].embedding_size:
            here, others = (each.embedding_size or "no" for each in (manifest, manifests[0]))
            raise UserError(
                f"'{folder}' holds codes with embeddings of {here} numbers, '{folders[0]}' of {others}: they cannot be "
                "joined"
            )
        for name in _OPTIONS:
            mine, its = (each.settings.options.get(name) for each in (manifests[0], manifest))
            if mine != its:
                raise UserError(
                    f"'{folder}' holds codes with {name} {its}, '{folders[0]}' codes with {name} {mine}: they cannot "
                    "be joined"
                )
    inputs = [manifest.settings.input for manifest in manifests]
    for place, digest in enumerate(inputs):
        if digest in inputs[:place]:
            raise UserError(
                f"'{folders[inputs.index(digest)]}' and '{folders[place]}' hold codes of the same pictures: name one"
            )


def _all_classes(folders: Sequence[Path], manifests: Sequence[CodeManifest]) -> tuple[str, ...] | None:
    """The names of the classes of all, each once, in the order in which they come."""
    labelled = [each for each in zip(folders, manifests, strict=True) if each[1].labelled or each[1].classes]
    named = [manifest.classes for _, manifest in labelled if manifest.classes is not None]
    if named and len(named) < len(labelled):
        folder = next(folder for folder, manifest in labelled if manifest.classes is None)
        raise UserError(f"the labels of '{folder}' are numbers without names, others have names: they cannot be joined")
    return tuple(dict.fromkeys(itertools.chain.from_iterable(named))) if named else None


def _joined_settings(settings: Sequence[ExportSettings]) -> ExportSettings:
    first = settings[0]
    digest = hashlib.sha256("".join(each.input for each in settings).encode()).hexdigest()
    shared = {
        name: value
        for name, value in first.options.items()
        if all(each.options.get(name) == value for each in settings[1:])
    }
    own = ("input", "pictures", "shard_size", "batch_size", "options")
    joined = [{name: getattr(each, name) for name in own} for each in settings]
    pictures = sum(each.pictures for each in settings)
    return dataclasses.replace(first, pictures=pictures, input=digest, options={**shared, "joined": joined})
