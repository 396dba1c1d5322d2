"""Crops from tar shards, which are read from start to end."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import webdataset
from torch.utils.data import get_worker_info

from vltok.data.decoding import CorruptPicture
from vltok.data.images import ExportSource, Sample
from vltok.data.loading import Draw, Failure, Stream, crop_generator
from vltok.data.skipping import Skipped, SkippedPictures
from vltok.data.tars import Part, decode_sample, label_of
from vltok.data.transforms import Crop, to_bytes_tensor
from vltok.errors import UserError
from vltok.processes import world


@dataclass(frozen=True)
class SampleDecoder:
    """Makes crops of encoded samples.

    Attributes:
        crop: How to crop.
        least_side: The picture's sides may be decoded as small as this.
        seed: Sets the random crops.
        purpose: What the crops are for: crops for different purposes differ.
    """

    crop: Crop
    least_side: int
    seed: int
    purpose: str

    def __call__(self, sample: dict, epoch: int) -> Draw:
        key = sample["__key__"]
        try:
            image = decode_sample(sample, self.least_side)
        except CorruptPicture as error:
            return Draw(None, (Skipped(key, str(error)),))
        pixels = to_bytes_tensor(self.crop(image, crop_generator(self.seed, self.purpose, epoch, key)))
        return Draw(Sample(key, pixels, label_of(sample)))


class TrainingStream(Stream):
    """Endless passes over the shards, of which each worker of each process takes its part of an epoch.

    Where there are at least as many shards as readers (the workers of all processes), these split the shards, and
    a pass of one may end before another's. Otherwise all read the same shuffled samples, and take the batches in turn.

    Args:
        decoder: Makes the crops.
        part: The training pictures.
        batches: The batches of an epoch, in each process: the same in all, or distributed training would wait forever.
        batch_size: Images of a batch.
        buffer: Samples that each worker keeps to draw from.
    """

    def __init__(self, decoder: SampleDecoder, part: Part, batches: int, batch_size: int, buffer: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.part = part
        self.batches = batches
        self.batch_size = batch_size
        self.buffer = buffer
        self.rank, self.processes = world()  # asked here, for a worker may not know
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw | Failure]:
        worker, workers = _worker()
        workers = min(workers, self.batches)
        if worker >= workers:
            return
        batches = self.batches // workers + (worker < self.batches % workers)
        draws = self._draws(worker * self.processes + self.rank, workers * self.processes)
        try:
            yield from itertools.islice(draws, batches * self.batch_size)
        except UserError as error:
            yield Failure(str(error))

    def _draws(self, reader: int, readers: int) -> Iterator[Draw]:
        """The crops of one reader; a corrupt picture's place is taken by the next one."""
        if len(self.part.shards) >= readers:
            samples, first, step = self._samples(reader, readers), 0, 1
        else:
            samples, first, step = self._samples(0, 1), reader, readers
        position = 0
        passes = 0  # that have ended since a picture could be read
        for batch in itertools.count(first, step):
            skipped: list[Skipped] = []
            room = self.batch_size
            for sample in samples:
                if sample is None:
                    passes += 1
                    if passes > 1:
                        yield Draw(None, tuple(skipped))
                        raise UserError(f"no training picture can be read from '{self.part.shards[0]}' and the others")
                    continue
                position += 1
                if position <= batch * self.batch_size:  # of another reader's batch
                    continue
                draw = self.decoder(sample, self.epoch)
                skipped.extend(draw.skipped)
                if draw.sample is None:
                    continue
                yield dataclasses.replace(draw, skipped=tuple(skipped))
                skipped.clear()
                passes = 0
                room -= 1
                if room == 0:
                    break

    def _samples(self, reader: int, readers: int) -> Iterator[dict | None]:
        """Endless passes over a reader's shards, which are others each time; None stands where a pass ends."""
        for turn in itertools.count():
            name = f"{self.decoder.seed}/{self.epoch}/{turn}"
            shards = tuple(random.Random(name).sample(self.part.shards, len(self.part.shards)))
            empty = True
            # where the pictures of its own shards all belong to another part, it reads the rest too
            for some in (shards[reader::readers], shards):
                for sample in _shuffled(self.part.samples(some), self.buffer, f"{name}/{reader}"):
                    empty = False
                    yield sample
                if not empty:
                    break
            yield None


class OrderedStream(Stream):
    """One pass, in the same order with any number of workers: these take the batches in turn.

    Args:
        decoder: Makes the crops.
        part: The pictures.
        rank: The number of this process among those that share the pictures.
        processes: How many those are.
        batch_size: Images of a batch.
        buffer: Samples to draw from, which mixes them; 0 keeps their order.
    """

    def __init__(
        self, decoder: SampleDecoder, part: Part, rank: int, processes: int, batch_size: int, buffer: int
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.part = part
        self.rank = rank
        self.processes = processes
        self.batch_size = batch_size
        self.buffer = buffer
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Every pass is the same."""

    def __iter__(self) -> Iterator[Draw | Failure]:
        worker, workers = _worker()
        try:
            samples = _shuffled(self.part.samples(self.part.shards), self.buffer, str(self.decoder.seed))
            for index, sample in enumerate(self._share(samples)):
                if index // self.batch_size % workers == worker:
                    yield self.decoder(sample, 0)
        except UserError as error:
            yield Failure(str(error))

    def _share(self, samples: Iterator[dict]) -> Iterator[dict]:
        """This process's samples: as many as any other's, for which the last one may stand in several."""
        while dealt := list(itertools.islice(samples, self.processes)):
            yield dealt[min(self.rank, len(dealt) - 1)]


class TarPictures(ExportSource):
    """Pictures in local tar shards.

    Args:
        decoder: Makes the crops.
        part: The pictures.
        hashes: The hashes of all keys of each shard.
        skipped: Counts the pictures that cannot be read.
        described: What the crops follow from.
    """

    def __init__(
        self, decoder: SampleDecoder, part: Part, hashes: list[np.ndarray], skipped: SkippedPictures, described: str
    ) -> None:
        self._decoder, self._part, self._hashes = decoder, part, hashes
        self._ends = np.cumsum([part.count(each) for each in hashes]).tolist()
        self._skipped, self._described = skipped, described

    @property
    def pictures(self) -> int:
        return self._ends[-1]

    @property
    def skipped(self) -> SkippedPictures:
        return self._skipped

    @property
    def described(self) -> str:
        return f"{self._described} {self._part.above} {self._part.up_to}"

    def keys(self) -> Iterator[str]:
        return (repr(float(place)) for each in self._hashes for place in each)  # their hashes serve as well

    def read(self, places: Iterable[int]) -> Iterator[Sample | Skipped]:
        wanted = iter(places)
        place = next(wanted, None)
        for shard, start, end in zip(self._part.shards, [0, *self._ends], self._ends, strict=False):
            if place is None or place >= end:
                continue
            for here, sample in enumerate(self._part.samples((shard,)), start):
                if here == place:
                    draw = self._decoder(sample, 0)
                    yield draw.skipped[0] if draw.sample is None else draw.sample
                    place = next(wanted, None)
                    if place is None or place >= end:
                        break
        if place is not None:
            raise UserError(f"data.shards hold fewer pictures than when they were counted ({self.pictures})")


def _worker() -> tuple[int, int]:
    """This worker's number among the workers of its process, and how many those are."""
    worker = get_worker_info()
    return (0, 1) if worker is None else (worker.id, worker.num_workers)


def _shuffled(samples: Iterable[dict], buffer: int, seed: str) -> Iterator[dict]:
    if buffer <= 1:
        return iter(samples)
    return iter(webdataset.shuffle(buffer, initial=buffer, rng=random.Random(seed))(iter(samples)))
