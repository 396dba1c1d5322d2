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
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import IterableDataset, Sampler

from vltok.errors import UserError
from vltok.loading.plans import in_batches, number_of_batches
from vltok.loading.position import Position
from vltok.loading.skipping import Skipped, SkippedPictures
from vltok.loading.workers import Failure, load, share, worker_loader
from vltok.pictures.crops import Crops, FilledPlace
from vltok.pictures.images import ImageBatch, collate
from vltok.pictures.samples import Finding, refuse_losses
from vltok.pictures.sizes import Sizes, in_words
from vltok.processes import world


@dataclass(frozen=True)
class _Loaded:
    """What came of a whole batch."""

    batch: ImageBatch | None
    skipped: tuple[Skipped, ...]
    findings: tuple[Finding, ...]

    def pin_memory(self) -> _Loaded:
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


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
        order = _order(self.count, self.seed, self._epoch)
        if self.split is not None:
            rank, processes = world()
            everyone = len(self) * processes
            order = (order * math.ceil(everyone / max(self.count, 1)))[:everyone][rank::processes]
        return ((index, self._epoch) for index in order[self._taken :])


class SizedPlaces(Sampler[list[tuple[int, int]]]):
    """The index and epoch of each crop of each batch, where crops have several sizes, and a batch has one.

    Args:
        numbers: Which of the sizes each crop has.
        sizes: The sizes.
        seed: Sets the order; None keeps it within each size.
        split: Deal the batches out to the processes of distributed training, the same number to each. `"drop"` leaves
            out the last few crops, so that batches are full; `"pad"` repeats the first few batches where there are
            fewer crops than processes. None gives all to each.

    Raises:
        UserError: With `"drop"`, a size has too few crops for a batch, or there are fewer batches than processes.
    """

    def __init__(
        self, numbers: Int64[np.ndarray, " n"], sizes: Sizes, *, seed: int | None = None, split: str | None = None
    ) -> None:
        self.count = len(numbers)
        self.seed = seed
        self._numbers, self._sizes, self._split = numbers, sizes, split
        self._epoch = 0
        self._taken = 0
        counts, most = np.bincount(numbers, minlength=len(sizes)), np.array(sizes.batch_sizes)
        if split == "drop":
            self._batches = counts // most
            for size, count, batches, full in zip(sizes.sizes, counts, self._batches, most, strict=True):
                if count and not batches:
                    raise UserError(
                        f"data.size {in_words(size)} has {count} training crops, but a batch has {full}: leave "
                        "it out, lower data.batch_size, or give more pictures"
                    )
            if not len(self):
                raise UserError(
                    f"data.batch_size {most[0]} makes {self._batches.sum()} batches of the {self.count} training "
                    f"crops, fewer than there are processes ({self._processes}): lower it, or give more pictures"
                )
        else:
            found = number_of_batches(counts, counts, most, self._processes)
            self._batches = -(-counts // most) if found is None else found

    def start(self, epoch: int, taken: int = 0) -> None:
        """Give the batches of an epoch from the next pass on, without so many of the first ones."""
        self._epoch, self._taken = epoch, taken

    def __len__(self) -> int:
        share = int(self._batches.sum()) / self._processes
        return math.floor(share) if self._split == "drop" else math.ceil(share)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.array(_order(self.count, self.seed, self._epoch))
        batches = in_batches(order, self._numbers, self._edges)
        rank, processes = world() if self._split else (0, 1)
        everyone = len(self) * processes
        batches = (batches * math.ceil(everyone / len(batches)))[:everyone][rank::processes]
        return ([(index, self._epoch) for index in batch.tolist()] for batch in batches[self._taken :])

    @property
    def _processes(self) -> int:
        return world()[1] if self._split else 1

    def _edges(self, number: int, crops: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " edges"]:
        steps = np.arange(self._batches[number] + 1)
        if self._split == "drop":
            return steps * self._sizes.batch_sizes[number]
        return steps * len(crops) // max(int(self._batches[number]), 1)


def places_of(
    count: int,
    numbers: Int64[np.ndarray, " n"] | None,
    sizes: Sizes,
    *,
    seed: int | None = None,
    split: str | None = None,
) -> Places | SizedPlaces:
    """The places of so many crops: those of one size are dealt out one by one, those of several sizes in batches."""
    if numbers is None:
        return Places(count, seed=seed, split=split)
    return SizedPlaces(numbers, sizes, seed=seed, split=split)


def _order(count: int, seed: int | None, epoch: int) -> list[int]:
    """The numbers from 0 on, shuffled by a seed."""
    order = list(range(count))
    if seed is not None:
        random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


class Stream(IterableDataset[list[FilledPlace] | Failure], ABC):
    """Batches of crops of pictures that can only be read one after the other."""

    @property
    @abstractmethod
    def order(self) -> dict[str, int]:
        """What the order of training batches follows from, besides the batches themselves."""

    @abstractmethod
    def start(self, epoch: int, taken: int = 0) -> None:
        """Give the batches of an epoch from the next pass on, without so many of the first ones."""

    @abstractmethod
    def __iter__(self) -> Iterator[list[FilledPlace] | Failure]:
        """This worker's part of an epoch."""


class Loader:
    """Batches of images, for a loop or for Lightning. A training's can be taken up again in mid-epoch.

    Raises a `UserError` while it is iterated when too many pictures are corrupt, or none is left, or a worker ends.

    Args:
        dataset: What to load: crops by place, or a stream.
        skipped: Counts the pictures that cannot be read.
        total: The number of pictures in the whole set, of which a share may be corrupt.
        batch_size: Images of a batch; of the first size, where there are several.
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
        places: Places | SizedPlaces | None = None,
        training: bool = False,
        length: int | None = None,
        tell: Callable[[Finding], None] = refuse_losses,
    ) -> None:
        if training and isinstance(places, Places) and len(places) < batch_size:
            raise UserError(
                f"data.batch_size {batch_size} is more than the {len(places)} training crops that each process has in "
                "an epoch: lower it, or give more pictures"
            )
        self._dataset, self._places, self._batch_size = dataset, places, batch_size
        self._skipped, self._total, self._tell = skipped, total, tell
        self._length = length if places is None else None
        # a stream gives whole batches
        cut: dict[str, Any] = {"batch_size": None} if places is None else {"batch_sampler": places}
        if isinstance(places, Places):
            cut = {"batch_size": batch_size, "sampler": places, "drop_last": training}
        self._loader = worker_loader(
            dataset,
            workers,
            **cut,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            # a stream hears of the epoch when its workers start
            persistent_workers=training and workers > 0 and places is not None,
        )
        #: Where Lightning tells the epoch.
        self.sampler = None
        if training:
            # batch by batch, processes take one order of crops in turn; a stream is shared out by its readers
            moved = None if places is None else lambda taken, processes, batches: taken * processes // world()[1]
            self.sampler = Position(len(self), self._order(), world()[1], moved)
        #: Lightning asks for this next to `sampler`.
        self.batch_sampler = None

    def __len__(self) -> int:
        if self._length is not None:
            return self._length
        if isinstance(self._dataset, Stream):
            raise TypeError("the number of batches of this stream is not known before it ends")
        return len(self._loader)

    def __iter__(self) -> Iterator[ImageBatch]:
        position = self.sampler or Position(0, {})
        taken = position.start()
        if isinstance(self._dataset, Stream):
            self._dataset.start(position.epoch, taken)
        if self._places is not None:
            self._places.start(position.epoch, taken * (self._batch_size if isinstance(self._places, Places) else 1))
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
            UserError: The order of the pictures would be another one than it was then.
        """
        if self.sampler is not None:
            self.sampler.load_state_dict(state)

    def _order(self) -> dict[str, int]:
        order = {"data.batch_size": self._batch_size}
        if isinstance(self._dataset, Stream):
            order |= self._dataset.order | {"data.workers": self._loader.num_workers}
        if self._places is not None:
            order |= {"training crops": self._places.count, "data.seed": self._places.seed or 0}
        return order


def _collate(places: Sequence[FilledPlace] | Failure) -> _Loaded | Failure:
    if isinstance(places, Failure):
        return places
    samples = [place.sample for place in places if place.sample is not None]
    try:
        batch = collate(samples) if samples else None
        if batch is not None:
            share(batch.images, batch.labels, batch.embeddings)
    except UserError as error:
        return Failure(str(error))
    return _Loaded(
        batch,
        tuple(picture for place in places for picture in place.skipped),
        tuple(finding for place in places for finding in place.findings),
    )
