"""Loading batches: worker processes decode; the main process counts what they skipped and raises their errors.

A worker's exception would reach the user as a traceback, and its warnings and counts would be lost with it. So
workers raise nothing about pictures: they send back what happened, and `Loader` acts on it.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Sampler

from vltok.errors import UserError
from vltok.loading.position import Position
from vltok.loading.skipping import Skipped, SkippedPictures
from vltok.loading.workers import Failure, load, share, worker_loader
from vltok.pictures.decoding import CorruptPicture
from vltok.pictures.images import ImageBatch, Sample, collate
from vltok.pictures.samples import Finding
from vltok.pictures.splits import key_bytes
from vltok.pictures.transforms import Crop, to_bytes_tensor
from vltok.processes import world

#: How many others are tried in the place of a corrupt training picture.
REPLACEMENTS = 20


@dataclass(frozen=True)
class FilledPlace:
    """What came of one place in a batch: a picture, unless there is none, and what was met on the way.

    Attributes:
        sample: The picture.
        skipped: Those that were skipped for it.
        findings: What is odd in the shards that were read for it.
    """

    sample: Sample | None
    skipped: tuple[Skipped, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Loaded:
    """What came of a whole batch."""

    batch: ImageBatch | None
    skipped: tuple[Skipped, ...]
    findings: tuple[Finding, ...]

    def pin_memory(self) -> _Loaded:
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


class Pictures(ABC):
    """Pictures that can be read in any order."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def key(self, index: int) -> str:
        """What names a picture; no other has the same."""

    @abstractmethod
    def label(self, index: int) -> int | None:
        """A picture's class."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """A picture as RGB.

        Raises:
            CorruptPicture: It cannot be read.
        """


def crop_generator(seed: int, purpose: str, epoch: int, key: str) -> random.Random:
    """The randomness of one crop: it depends on these alone, not on the order or the process that makes it."""
    return random.Random(key_bytes(f"{seed}/{purpose}/{epoch}/{key}"))


class Crops(Dataset[FilledPlace]):
    """Crops of pictures, by index and epoch.

    Args:
        pictures: What to crop.
        crop: How to crop.
        seed: Sets the random crops.
        purpose: What the crops are for: crops for different purposes differ.
        replace: Put another picture in the place of a corrupt one, rather than leaving it out.
    """

    def __init__(self, pictures: Pictures, crop: Crop, *, seed: int, purpose: str, replace: bool = False) -> None:
        self.pictures = pictures
        self.crop = crop
        self.seed = seed
        self.purpose = purpose
        self.replace = replace

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: tuple[int, int]) -> FilledPlace:
        index, epoch = place
        generator = crop_generator(self.seed, self.purpose, epoch, self.pictures.key(index))
        skipped = []
        for _ in range(1 + REPLACEMENTS if self.replace else 1):
            key = self.pictures.key(index)
            try:
                image = self.pictures.read(index)
            except CorruptPicture as error:
                skipped.append(Skipped(key, str(error)))
                index = generator.randrange(len(self.pictures))
                continue
            pixels = to_bytes_tensor(self.crop(image, generator))
            return FilledPlace(Sample(key, pixels, self.pictures.label(index)), tuple(skipped))
        return FilledPlace(None, tuple(skipped))


class Places(Sampler[tuple[int, int]]):
    """The index and epoch of each crop, in order or shuffled.

    Args:
        count: The number of crops.
        seed: Sets the order; None keeps it.
        split: Deal the crops out to the processes of distributed training, the same number to each: `"drop"` leaves
            out the last few, `"pad"` repeats the first few, None gives all to each.
    """

    def __init__(self, count: int, *, seed: int | None = None, split: str | None = None) -> None:
        self.count = count
        self.seed = seed
        self.split = split
        self._epoch = 0
        self._taken = 0

    def start(self, epoch: int, taken: int = 0) -> None:
        """Give the places of an epoch from the next pass on, without so many of the first ones."""
        self._epoch, self._taken = epoch, taken

    def __len__(self) -> int:
        if self.split is None:
            return self.count
        share = self.count / world()[1]
        return math.floor(share) if self.split == "drop" else math.ceil(share)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.count))
        if self.seed is not None:
            random.Random(f"{self.seed}/{self._epoch}").shuffle(order)
        if self.split is not None:
            rank, processes = world()
            everyone = len(self) * processes
            order = (order * math.ceil(everyone / max(self.count, 1)))[:everyone][rank::processes]
        return ((index, self._epoch) for index in order[self._taken :])


class Stream(IterableDataset[FilledPlace], ABC):
    """Crops of pictures that can only be read one after the other."""

    @property
    @abstractmethod
    def order(self) -> dict[str, int]:
        """What the order of training batches follows from, besides the batches themselves."""

    @abstractmethod
    def start(self, epoch: int, taken: int = 0) -> None:
        """Give the crops of an epoch from the next pass on, without those of so many batches."""

    @abstractmethod
    def __iter__(self) -> Iterator[FilledPlace | Failure]:
        """This worker's part of an epoch."""


class Loader:
    """Batches of images, for a loop or for Lightning. A training's can be taken up again in mid-epoch.

    Raises a `UserError` while it is iterated when too many pictures are corrupt, or none is left, or a worker ends.

    Args:
        dataset: What to load: crops by place, or a stream.
        skipped: Counts the pictures that cannot be read.
        total: The number of pictures in the whole set, of which a share may be corrupt.
        batch_size: Images of a batch.
        workers: Processes that decode.
        places: The crops to load, in order; None for a stream.
        training: Crops change from one epoch to the next, and batches are full. Otherwise each pass is the same.
        length: The number of batches of a stream, where it is known; that of training's always is.
        tell: Is told what is odd in shards; what it raises ends the pass.

    Raises:
        UserError: There are too few training crops for a batch.
    """

    def __init__(
        self,
        dataset: Crops | Stream,
        skipped: SkippedPictures,
        *,
        total: int,
        batch_size: int,
        workers: int,
        places: Places | None = None,
        training: bool = False,
        length: int | None = None,
        tell: Callable[[Finding], None] | None = None,
    ) -> None:
        self._tell = tell
        if training and places is not None and len(places) < batch_size:
            raise UserError(
                f"data.batch_size {batch_size} is more than the {len(places)} training crops that each process has in "
                "an epoch: lower it, or give more pictures"
            )
        self._skipped = skipped
        self._total = total
        self._length = length if places is None else None
        self._batch_size = batch_size
        self._places = places
        self._loader = worker_loader(
            dataset,
            workers,
            batch_size=batch_size,
            sampler=places,
            collate_fn=_collate,
            # a stream's epochs are whole batches, except where it ends in a failure
            drop_last=training and places is not None,
            pin_memory=torch.cuda.is_available(),
            # a stream hears of the epoch when its workers start
            persistent_workers=training and workers > 0 and places is not None,
        )
        #: Where Lightning tells the epoch.
        self.sampler = Position(len(self), self._order()) if training else None
        #: Lightning asks for this next to `sampler`.
        self.batch_sampler = None

    def __len__(self) -> int:
        if self._length is not None:
            return self._length
        if isinstance(self._loader.dataset, IterableDataset):
            raise TypeError("the number of batches of this stream is not known before it ends")
        return len(self._loader)

    def __iter__(self) -> Iterator[ImageBatch]:
        position = self.sampler or Position(0, {})
        taken = position.start()
        if self._places is None:
            self._loader.dataset.start(position.epoch, taken)
        else:
            self._places.start(position.epoch, taken * self._batch_size)
        empty = not taken
        for loaded in load(self._loader):
            self._skipped.add(loaded.skipped, self._total)
            for finding in loaded.findings:
                self._tell(finding)
            position.take()
            if loaded.batch is not None:
                empty = False
                yield loaded.batch
        if empty and self._skipped.keys:
            raise UserError(f"no picture can be read; the first that cannot is {self._skipped.keys[0]}")
        position.set_epoch(position.epoch + 1)  # a plain loop over epochs gets new crops too

    def state_dict(self) -> dict[str, int]:
        """Where the next batch of a training stands; batches that workers have prepared beforehand do not count."""
        return {} if self.sampler is None else self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where `state_dict` was taken: what lies before is not decoded again.

        Raises:
            UserError: The batches would be others than they were then.
        """
        if self.sampler is not None:
            self.sampler.load_state_dict(state)

    def _order(self) -> dict[str, int]:
        order = {"data.batch_size": self._batch_size, "processes": world()[1], "batches in an epoch": len(self)}
        if self._places is None:
            return order | self._loader.dataset.order | {"data.workers": self._loader.num_workers}
        return order | {"training crops": self._places.count, "data.seed": self._places.seed or 0}


def _collate(draws: Sequence[FilledPlace | Failure]) -> _Loaded | Failure:
    failure = next((draw for draw in draws if isinstance(draw, Failure)), None)
    if failure is not None:
        return failure
    samples = [draw.sample for draw in draws if draw.sample is not None]
    try:
        batch = collate(samples) if samples else None
        if batch is not None:
            share(batch.images, batch.labels)
    except UserError as error:
        return Failure(str(error))
    return _Loaded(
        batch,
        tuple(picture for draw in draws for picture in draw.skipped),
        tuple(finding for draw in draws for finding in draw.findings),
    )
