"""Pictures in tar shards, for an export."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from vltok.errors import UserError
from vltok.loading.skipping import Skipped, SkippedPictures
from vltok.pictures.exporting import named_by_view
from vltok.pictures.images import ExportSource, Sample
from vltok.pictures.shard_split import ShardIndex, ShardSplit
from vltok.pictures.streams import SampleDecoder


class TarPictures(ExportSource):
    """Pictures in tar shards, local ones or such as copies are kept of.

    Args:
        decoder: Makes the crops.
        part: The pictures, which are counted.
        index: The keys of all pictures in the shards.
        skipped: Counts the pictures that cannot be read.
        described: What the crops follow from.
        views: How many crops there are of each picture, one after another.
    """

    def __init__(
        self,
        decoder: SampleDecoder,
        part: ShardSplit,
        index: ShardIndex,
        skipped: SkippedPictures,
        described: str,
        views: int = 1,
    ) -> None:
        self._decoder, self._part, self._index, self.views = decoder, part, index, views
        self._ends = list(itertools.accumulate(part.pictures or ()))
        self.pictures, self.skipped = self._ends[-1] * views, skipped
        self.described = f"{described} {part.above} {part.up_to}"

    def keys(self) -> Iterator[str]:
        # their hashes serve as well
        return (repr(float(place)) for shard in self._part.shards for place in self._index.hashes[shard])

    def read(self, places: Iterable[int]) -> Iterator[Sample | Skipped]:
        wanted = iter(places)
        place = next(wanted, None)
        for shard, start, end in zip(self._part.shards, [0, *self._ends], self._ends, strict=False):
            if place is None or place >= end * self.views:
                continue
            for here, sample in enumerate(self._part.samples((shard,)), start):
                number = None
                while place is not None and place // self.views == here:
                    view = place % self.views
                    number = self._decoder.number(sample) if number is None else number
                    draw = self._decoder(sample, view, number)
                    yield draw.skipped[0] if draw.sample is None else named_by_view(draw.sample, view)
                    place = next(wanted, None)
                if place is None or place >= end * self.views:
                    break
        if place is not None:
            raise UserError(f"data.shards hold fewer pictures than when they were counted ({self.pictures})")
