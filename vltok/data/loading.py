"""Loading batches: worker processes decode; the main process counts what they skipped and raises their errors.

A worker's exception would reach the user as a traceback, and its warnings and counts would be lost with it. So
workers raise nothing about pictures: they send back what happened, and `Loader` acts on it.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from vltok.data.decoding import CorruptPicture
from vltok.data.images import ImageBatch, Sample, collate
from vltok.data.skipping import Skipped, SkippedPictures
from vltok.data.transforms import Crop, to_bytes_tensor
from vltok.errors import UserError
from vltok.processes import world

# How many others are tried in the place of a corrupt training picture.
_REPLACEMENTS = 20


@dataclass(frozen=True)
class Failure:
    """An error of the user's that a worker met."""

    message: str


@dataclass(frozen=True)
class Draw:
    """What came of one place in a batch: a picture, unless there is none, and those that were skipped for it."""

    sample: Sample | None
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class _Loaded:
    """What came of a whole batch."""

    batch: ImageBatch | None
    skipped: tuple[Skipped, ...] = ()
    failure: Failure | None = None

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
    return random.Random(f"{seed}/{purpose}/{epoch}/{key}")


class Crops(Dataset[Draw]):
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

    def __getitem__(self, place: tuple[int, int]) -> Draw:
        index, epoch = place
        generator = crop_generator(self.seed, self.purpose, epoch, self.pictures.key(index))
        skipped = []
        for _ in range(1 + _REPLACEMENTS if self.replace else 1):
            key = self.pictures.key(index)
            try:
                image = self.pictures.read(index)
            except CorruptPicture as error:
                skipped.append(Skipped(key, str(error)))
                index = generator.randrange(len(self.pictures))
                continue
            pixels = to_bytes_tensor(self.crop(image, generator))
            return Draw(Sample(key, pixels, self.pictures.label(index)), tuple(skipped))
        return Draw(None, tuple(skipped))


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
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.split is None:
            return self.count
        share = self.count / world()[1]
        return math.floor(share) if self.split == "drop" else math.ceil(share)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.count))
        if self.seed is not None:
            random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
        if self.split is not None:
            rank, processes = world()
            everyone = len(self) * processes
            order = (order * math.ceil(everyone / max(self.count, 1)))[:everyone][rank::processes]
        return ((index, self.epoch) for index in order)


class Stream(IterableDataset[Draw], ABC):
    """Crops of pictures that can only be read one after the other."""

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""

    @abstractmethod
    def __iter__(self) -> Iterator[Draw | Failure]:
        """This worker's part of an epoch."""


class Loader:
    """Batches of images, for a loop or for Lightning.

    Raises a `UserError` while it is iterated when too many pictures are corrupt, or none is left.

    Args:
        dataset: What to load: crops by place, or a stream.
        skipped: Counts the pictures that cannot be read.
        total: The number of pictures in the whole set, of which a share may be corrupt.
        batch_size: Images of a batch.
        workers: Processes that decode.
        places: The crops to load, in order; None for a stream.
        training: Crops change from one epoch to the next, and batches are full. Otherwise each pass is the same.
        length: The number of batches of a stream, where it is known.

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
    ) -> None:
        if training and places is not None and len(places) < batch_size:
            raise UserError(
                f"data.batch_size {batch_size} is more than the {len(places)} training crops that each process has in "
                "an epoch: lower it, or give more pictures"
            )
        self._skipped = skipped
        self._total = total
        self._length = length if places is None else None
        self._loader = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=places,
            num_workers=workers,
            collate_fn=_collate,
            # a stream's epochs are whole batches, except where it ends in a failure
            drop_last=training and places is not None,
            pin_memory=torch.cuda.is_available(),
            # a stream hears of the epoch when its workers start
            persistent_workers=training and workers > 0 and places is not None,
        )
        #: Where Lightning tells the epoch.
        self.sampler = (dataset if places is None else places) if training else None
        #: Lightning asks for this next to `sampler`.
        self.batch_sampler = None

    def __len__(self) -> int:
        if self._length is not None:
            return self._length
        if isinstance(self._loader.dataset, IterableDataset):
            raise TypeError("the number of batches of this stream is not known before it ends")
        return len(self._loader)

    def __iter__(self) -> Iterator[ImageBatch]:
        empty = True
        for loaded in self._loader:
            if loaded.failure is not None:
                raise UserError(loaded.failure.message)
            self._skipped.add(loaded.skipped, self._total)
            if loaded.batch is not None:
                empty = False
                yield loaded.batch
        if empty and self._skipped.keys:
            raise UserError(f"no picture can be read; the first that cannot is {self._skipped.keys[0]}")
        if self.sampler is not None:  # a plain loop over epochs gets new crops too
            self.sampler.set_epoch(self.sampler.epoch + 1)


def _collate(draws: Sequence[Draw | Failure]) -> _Loaded:
    failure = next((draw for draw in draws if isinstance(draw, Failure)), None)
    if failure is not None:
        return _Loaded(None, failure=failure)
    samples = [draw.sample for draw in draws if draw.sample is not None]
    skipped = tuple(picture for draw in draws for picture in draw.skipped)
    try:
        return _Loaded(collate(samples) if samples else None, skipped)
    except UserError as error:
        return _Loaded(None, skipped, Failure(str(error)))
