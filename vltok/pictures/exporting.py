"""Reading pictures for an export: chosen places of a source, in batches that do not depend on who reads them.

A batch is so many consecutive places; where their pictures have several sizes, it comes in parts, of one size each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch.utils.data import IterableDataset

from vltok.errors import UserError
from vltok.loading.skipping import Skipped, SkippedPicture, SkippedPictures
from vltok.loading.workers import Failure, load, share, this_worker, worker_loader
from vltok.pictures.crops import Crops
from vltok.pictures.images import ExportSource, ImageBatch, Sample, collate


@dataclass(frozen=True, eq=False)
class ExportBatch:
    """What came of some places of a source, whose pictures have one size.

    Attributes:
        places: Those of the images.
        images: The pictures that could be read, or None where none could.
        skipped: The others.
    """

    places: list[int]
    images: ImageBatch | None
    skipped: list[SkippedPicture]

    def pin_memory(self) -> ExportBatch:
        """The same in page-locked memory."""
        return self if self.images is None else replace(self, images=self.images.pin_memory())


@final
class CroppedPictures(ExportSource):
    """Pictures that can be read in any order.

    Args:
        crops: Their crops.
        skipped: Counts the pictures that cannot be read.
        described: What the crops follow from.
        views: How many crops there are of each picture, one after another.
    """

    def __init__(self, crops: Crops, skipped: SkippedPictures, described: str, views: int = 1) -> None:
        self._crops, self.views = crops, views
        self.pictures, self.skipped, self.described = len(crops) * views, skipped, described

    def keys(self) -> Iterator[str]:
        return map(self._crops.pictures.key, range(len(self._crops)))

    def read(self, places: Iterable[int]) -> Iterator[Sample | Skipped]:
        for place in places:
            picture, view = divmod(place, self.views)
            draw = self._crops[picture, view]
            yield draw.skipped[0] if draw.sample is None else named_by_view(draw.sample, view)


def named_by_view(sample: Sample, view: int) -> Sample:
    """The same, with a key that the other crops of its picture do not have."""
    return replace(sample, key=f"{sample.key}-{view}") if view else sample


def export_batches(
    source: ExportSource, parts: Sequence[Sequence[int]], batch_size: int, workers: int
) -> Iterator[ExportBatch]:
    """Load parts of a source: each in batches, so that no batch spans two parts.

    Args:
        source: The pictures.
        parts: The places to load, ascending.
        batch_size: Places of a batch; the last one of a part may have fewer.
        workers: Subprocesses that decode, batch by batch in turn; 0 decodes in this one.

    Raises:
        UserError: Too many pictures are corrupt, or the source cannot be read, or a worker ends.
    """
    batches = _Batches(source, parts, batch_size)
    for parts_of_batch in load(worker_loader(batches, workers, batch_size=None, pin_memory=torch.cuda.is_available())):
        for batch in parts_of_batch:
            source.skipped.add(batch.skipped, source.pictures // source.views)  # a file is counted once
            yield batch


class _Batches(IterableDataset):
    """Every so many-th batch, for each worker; or an error, which must not be lost on the way."""

    def __init__(self, source: ExportSource, parts: Sequence[Sequence[int]], batch_size: int) -> None:
        super().__init__()
        self._source, self._parts, self._batch_size = source, parts, batch_size

    def __iter__(self) -> Iterator[list[ExportBatch] | Failure]:
        try:
            read = self._source.read(itertools.chain.from_iterable(self._mine()))
            for places in self._mine():
                found = dict(zip(places, read, strict=False))
                sizes: dict[tuple[int, ...], dict[int, Sample]] = {}
                skipped = []
                for place, item in found.items():
                    if isinstance(item, Skipped):
                        skipped.append(SkippedPicture(place, item.key, item.reason))
                    else:
                        sizes.setdefault(tuple(item.pixels.shape), {})[place] = item
                batches: list[ExportBatch] = []
                for size in sorted(sizes):
                    images = collate(list(sizes[size].values()))
                    share(images.images, images.labels, images.embeddings)
                    batches.append(ExportBatch(list(sizes[size]), images, [] if batches else skipped))
                yield batches or [ExportBatch([], None, skipped)]
        except UserError as error:
            yield Failure(str(error))

    def _mine(self) -> Iterator[Sequence[int]]:
        size = self._batch_size
        batches = (part[start : start + size] for part in self._parts for start in range(0, len(part), size))
        worker, workers = this_worker()
        return itertools.islice(batches, worker, None, workers)
