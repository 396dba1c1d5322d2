"""Crops from tar shards, which are read from start to end."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import webdataset

from vltok.errors import UserError
from vltok.loading.skipping import Skipped
from vltok.loading.workers import Failure, this_worker
from vltok.pictures.batches import Stream
from vltok.pictures.crops import REPLACEMENTS, FilledPlace, crop_generator
from vltok.pictures.decoding import CorruptPicture, decode, shape_of
from vltok.pictures.embeddings import EmbeddingPlace
from vltok.pictures.images import Sample
from vltok.pictures.labels import label_of
from vltok.pictures.samples import Finding, FindingKind, TarSample, refuse_losses
from vltok.pictures.shard_split import ShardSplit
from vltok.pictures.sizes import Sizes
from vltok.pictures.tars import is_address
from vltok.pictures.texts import TextPlace
from vltok.pictures.transforms import Crop, to_bytes_tensor

_T = TypeVar("_T")


@dataclass(frozen=True)
class SampleDecoder:
    """Makes crops of encoded samples.

    Attributes:
        crops: How to crop, for each size.
        sizes: The sizes, and how many crops of each make a batch.
        least_side: The picture's sides may be decoded as small as this.
        seed: Sets the random crops.
        purpose: What the crops are for: crops for different purposes differ.
        classes: The names of the classes, where they have any.
        texts: Where the texts of pictures stand; None reads none.
        embeddings: Where the embeddings of pictures stand; None reads none.
    """

    crops: Sequence[Crop]
    sizes: Sizes
    least_side: int
    seed: int
    purpose: str
    classes: Sequence[str] | None
    texts: TextPlace | None = None
    embeddings: EmbeddingPlace | None = None

    def number(self, sample: TarSample) -> int:
        """Which of the sizes a picture is cropped to, for which its header is read where there are several."""
        if len(self.sizes) == 1:
            return 0
        shape = shape_of(sample.read()) or (1, 1)  # what is none is met when it is decoded
        return int(self.sizes.nearest(np.array([shape], dtype=np.int64))[0])

    def __call__(self, sample: TarSample, epoch: int, number: int) -> FilledPlace:
        """The crop of a sample, of the size of a number."""
        crop = self.crops[number]
        try:
            image = decode(sample.read(), self.least_side)
        except CorruptPicture as error:
            return FilledPlace(None, (Skipped(sample.unique, str(error)),))
        pixels = to_bytes_tensor(crop(image, crop_generator(self.seed, self.purpose, epoch, sample.key)))
        text = None if self.texts is None else self.texts.of_sample(sample)
        embedding = None if self.embeddings is None else self.embeddings.of_sample(sample)
        return FilledPlace(Sample(sample.key, pixels, label_of(sample, self.classes), text, embedding))


class _Findings:
    """What is odd in the shards that a worker reads, until a place in a batch takes it to the main process."""

    def __init__(self) -> None:
        self._told: set[object] = set()
        self._waiting: list[Finding] = []

    def tell(self, finding: Finding) -> None:
        """Keep one of each kind, and all shards that are left out."""
        unreadable = finding.kind is FindingKind.UNREADABLE
        if not unreadable:
            refuse_losses(finding)
        which = finding.shard if unreadable else finding.kind
        if which not in self._told:
            self._told.add(which)
            self._waiting.append(finding)

    def take(self) -> tuple[Finding, ...]:
        """What has come since the last call."""
        taken, self._waiting = tuple(self._waiting), []
        return taken


@dataclass(eq=False)
class TrainingStream(Stream):
    """Endless passes over the shards, of which each worker of each process takes its part of an epoch.

    Where there are at least as many shards as readers (the workers of all processes), these split the shards, and
    a pass of one may end before another's. Otherwise all read the same shuffled samples. A reader's batches are those
    that fill one after another while it reads (each of so many consecutive samples, where there is one size), or every
    so many-th of those, so that a training which goes on in the middle of an epoch need not decode what lies before.
    Samples whose batch is not full when the epoch ends are left out of it.

    Attributes:
        decoder: Makes the crops.
        part: The training pictures.
        rank: The number of this process among those that train.
        processes: How many those are.
        batches: The batches of an epoch, in each process: the same in all, or distributed training would wait forever.
        buffer: Samples that each worker keeps to draw from.
    """

    decoder: SampleDecoder
    part: ShardSplit
    rank: int
    processes: int
    batches: int
    buffer: int
    _epoch: int = field(default=0, init=False)
    _taken: int = field(default=0, init=False)
    _findings: _Findings = field(default_factory=_Findings, init=False)

    @property
    def order(self) -> dict[str, int]:
        return {
            "data.seed": self.decoder.seed,
            "data.shuffle_buffer": self.buffer,
            "shards of data.shards": len(self.part.shards),
        }

    def start(self, epoch: int, taken: int = 0) -> None:
        self._epoch, self._taken = epoch, taken

    def __iter__(self) -> Iterator[list[FilledPlace] | Failure]:
        worker, workers = this_worker()
        workers = min(workers, self.batches)
        if worker >= workers:
            return
        # batches are taken from the workers in turn, from the first worker on: so the first is who would be next
        worker = (worker + self._taken) % workers
        batches = range(worker, self.batches, workers)
        left = [turn for turn, batch in enumerate(batches) if batch >= self._taken]
        try:
            for turn in left[:1]:
                draws = self._draws(worker * self.processes + self.rank, workers * self.processes, turn)
                yield from itertools.islice(draws, len(left))
        except UserError as error:
            yield Failure(str(error))

    def _draws(self, reader: int, readers: int, turn: int) -> Iterator[list[FilledPlace]]:
        """The crops of one reader's batches from its `turn`-th on."""
        if len(self.part.shards) >= readers:
            source, first, step = self._samples(reader, readers), turn, 1
        else:
            source, first, step = self._samples(0, 1), reader + turn * readers, readers
        samples = _Ahead(source)
        for number, batch in itertools.islice(_batches(samples, self.decoder), first, None, step):
            draws = [self.decoder(sample, self._epoch, number) for sample in batch]
            draws += self._replacements(samples, sum(draw.sample is None for draw in draws), number)
            yield self._filled(draws, len(batch))

    def _replacements(self, samples: _Ahead, missing: int, number: int) -> list[FilledPlace]:
        """Crops for the places of corrupt pictures: of the next readable ones, which keep their own places."""
        draws = []
        for sample in samples.ahead(REPLACEMENTS * missing):
            draws.append(self.decoder(sample, self._epoch, number))
            missing -= draws[-1].sample is not None
            if not missing:
                break
        return draws

    def _filled(self, draws: list[FilledPlace], size: int) -> list[FilledPlace]:
        """As many draws as a batch has, with all that was skipped for them."""
        good = [draw for draw in draws if draw.sample is not None]
        skipped = tuple(picture for draw in draws for picture in draw.skipped)
        good += [FilledPlace(None)] * (size - len(good))
        return [dataclasses.replace(good[0], skipped=skipped, findings=self._findings.take()), *good[1:]]

    def _samples(self, reader: int, readers: int) -> Iterator[TarSample]:
        """Endless passes over a reader's shards, which are others each time."""
        for turn in itertools.count():
            name = f"{self.decoder.seed}/{self._epoch}/{turn}"
            shards = tuple(random.Random(name).sample(self.part.shards, len(self.part.shards)))
            empty = True
            # where the pictures of its own shards all belong to another part, it reads the rest too
            for some in (shards[reader::readers], shards):
                for sample in _shuffled(self.part.samples(some, self._findings.tell), self.buffer, f"{name}/{reader}"):
                    empty = False
                    yield sample
                if not empty:
                    break
            else:
                raise UserError(f"no training picture is in '{self.part.shards[0]}' and the others")


class _Ahead:
    """Samples that can be looked at before their turn."""

    def __init__(self, samples: Iterator[TarSample]) -> None:
        self._samples = samples
        self._waiting: deque[TarSample] = deque()

    def __iter__(self) -> Iterator[TarSample]:
        return self

    def __next__(self) -> TarSample:
        return self._waiting.popleft() if self._waiting else next(self._samples)

    def ahead(self, count: int) -> Iterator[TarSample]:
        """The next ones, which are still to come."""
        for place in range(count):
            if place == len(self._waiting):
                self._waiting.append(next(self._samples))
            yield self._waiting[place]


@dataclass(eq=False)
class OrderedStream(Stream):
    """One pass, in the same order with any number of workers: each takes a batch in turn, and leaps over the others.

    A batch comes when it is full; at the end come those that are not.

    Of shards behind addresses, each worker reads its own, so that their order depends on how many workers there are.

    Attributes:
        decoder: Makes the crops.
        part: The pictures.
        rank: The number of this process among those that share the pictures.
        processes: How many those are.
        buffer: Samples to draw from, which mixes them; 0 keeps their order.
    """

    decoder: SampleDecoder
    part: ShardSplit
    rank: int
    processes: int
    buffer: int

    @property
    def order(self) -> dict[str, int]:
        return {}

    def start(self, epoch: int, taken: int = 0) -> None:
        """Every pass is the same."""

    def __iter__(self) -> Iterator[list[FilledPlace] | Failure]:
        worker, workers = this_worker()
        findings = _Findings()
        try:
            shards = self.part.shards
            if any(map(is_address, shards)):  # what cannot be leapt over is read by one worker alone
                shards, worker, workers = shards[worker::workers], 0, 1
            samples = self.part.samples(shards, findings.tell)
            samples = _shuffled(samples, self.buffer, str(self.decoder.seed))
            if len(self.decoder.sizes) > 1:  # processes take batches in turn, which have as many crops
                batches = self._share(_batches(samples, self.decoder))
            else:
                batches = _batches(self._share(samples), self.decoder)
            for number, batch in itertools.islice(batches, worker, None, workers):
                found = [self.decoder(sample, 0, number) for sample in batch]
                yield [*found, FilledPlace(None, findings=findings.take())]
            if last := findings.take():
                yield [FilledPlace(None, findings=last)]
        except UserError as error:
            yield Failure(str(error))

    def _share(self, things: Iterator[_T]) -> Iterator[_T]:
        """This process's samples or batches: as many as any other's, for which the last one may stand in several."""
        while dealt := list(itertools.islice(things, self.processes)):
            yield dealt[min(self.rank, len(dealt) - 1)]


def _batches(samples: Iterable[TarSample], decoder: SampleDecoder) -> Iterator[tuple[int, list[TarSample]]]:
    """Samples of one size, and its number, as soon as they make a batch; at the end, those that make none."""
    waiting: dict[int, list[TarSample]] = {}
    for sample in samples:
        if len(decoder.sizes) > 1:
            sample = sample.kept()  # its header is read, and perhaps its pixels
        number = decoder.number(sample)
        waiting.setdefault(number, []).append(sample)
        if len(waiting[number]) == decoder.sizes.batch_sizes[number]:
            yield number, waiting.pop(number)
    yield from sorted(waiting.items())


def _shuffled(samples: Iterable[TarSample], buffer: int, seed: str) -> Iterator[TarSample]:
    if buffer <= 1:
        return iter(samples)
    kept = (sample.kept() for sample in samples)
    return iter(webdataset.shuffle(buffer, initial=buffer, rng=random.Random(seed))(kept))
