"""Images in tar shards, in WebDataset's layout: `vltok.pictures.samples` says what a sample is."""

from __future__ import annotations

import dataclasses
import math
import random
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vltok.errors import UserError
from vltok.files import check_folder
from vltok.loading.checks import check_at_least, check_loading, default_workers
from vltok.loading.classes import same_classes
from vltok.loading.skipping import SkippedPictures
from vltok.pictures.batches import Loader, Stream
from vltok.pictures.embeddings import EmbeddingPlace
from vltok.pictures.images import ImageData
from vltok.pictures.labels import class_names
from vltok.pictures.remote import Copies
from vltok.pictures.samples import Finding, FindingKind
from vltok.pictures.shard_export import TarPictures
from vltok.pictures.shard_split import ShardIndex, ShardSplit
from vltok.pictures.sizes import Sizes, crops_in_words
from vltok.pictures.splits import held_out_below
from vltok.pictures.streams import OrderedStream, SampleDecoder, TrainingStream
from vltok.pictures.tars import is_address, list_shards
from vltok.pictures.texts import TextPlace
from vltok.pictures.transforms import CentreCrop, Crop, RandomCrop
from vltok.processes import world

# Stands for the size of a set that is not known, of which a share may be corrupt.
_UNKNOWN_TOTAL = 1000


class WebDataset(ImageData):
    """Tar shards in WebDataset's layout: a picture each sample, and a label in `.cls` or `.json` (its key `label`).

    Nodes and workers split the shards of the training pictures; where there are more of them than shards, they split
    the samples. Shards should be shuffled, as `vltok pack` writes them. A file `classes.json` beside them names the
    classes. The headers of local shards are read once, to count the pictures; give `samples_per_epoch` where that
    takes long.

    Args:
        shards: The shards: paths or addresses, with braces or wildcards, such as `train-{000000..000146}.tar`.
        val_shards: The shards of the held-out pictures. None holds out some of `shards`.
        val_share: The share of `shards` to hold out, where `val_shards` is None: the last shards, if there are so
            many that it comes to one; otherwise the pictures whose keys have the lowest hashes, at least one.
        size: Side of a crop in pixels: the shorter side is resized to it. Or several sizes, each a height and a width,
            such as ``[[64, 64], [48, 80], [80, 48]]``: each picture is resized to cover the one whose aspect ratio is
            nearest, and cropped. A batch has one of them; in training it comes when it is full, so that of a size that
            few pictures have, some are left out of an epoch.
        batch_size: Images of a batch; of the first size, where there are several: batches of others have as many
            pixels.
        workers: Processes that read and decode in the background; 0 does so in the main one. None: as
            many as there are cores, up to eight. The order of the training crops depends on it, and that of all
            pictures behind addresses, of which each worker reads its own shards.
        samples_per_epoch: Training pictures of an epoch. None counts those in the shards, which must then be local.
        shuffle_buffer: Encoded pictures that each worker keeps to draw from, so that neighbours in a shard part.
        flip: Mirror half of the training crops left to right.
        max_corrupt: The share of pictures that may be corrupt: they are skipped, and named in a warning. In small
            sets up to three are borne (at most a quarter), unless it is 0.
        max_bad_shards: The share of shards behind addresses that may be left out where reading them fails, again and
            again; each is named in a warning.
        copies: A folder on this machine that keeps copies of shards behind addresses, for the next epochs; None keeps
            none.
        copies_gb: How many GB these may take; those that were read longest ago go first.
        picture: The ending of the pictures, such as `jpg` or `left.png`, where samples hold several.
        seed: Sets the crops and their order.
        texts: Where texts that describe the pictures stand: ``txt``, in a sample's `.txt`, or ``json``, under the key
            `text` of its `.json`, which may be the text alone, too; ``json:caption`` names another key. None reads
            none.
        embeddings: The ending of the members that hold the pictures' embeddings: ``npy``, or one such as ``clip.npy``.
            Each is an array `[e]`, and every picture has one. None reads none.

    Raises:
        UserError: A shard that does not exist, or a number out of its range.
    """

    def __init__(
        self,
        shards: str,
        val_shards: str | None = None,
        val_share: float = 0.05,
        size: int | list[tuple[int, int]] = 256,
        batch_size: int = 32,
        workers: int | None = None,
        samples_per_epoch: int | None = None,
        shuffle_buffer: int = 1000,
        flip: bool = True,
        max_corrupt: float = 0.01,
        max_bad_shards: float = 0.0,
        picture: str | None = None,
        copies: str | None = None,
        copies_gb: float = 100.0,
        seed: int = 0,
        texts: str | None = None,
        embeddings: str | None = None,
    ) -> None:
        super().__init__()
        workers = default_workers() if workers is None else workers
        check_loading(batch_size, workers, seed)
        self._sizes = Sizes.of(size, batch_size)
        check_at_least("shuffle_buffer", shuffle_buffer, 1)
        if samples_per_epoch is not None:
            check_at_least("samples_per_epoch", samples_per_epoch, batch_size)
        if not 0 <= max_bad_shards <= 1:
            raise UserError(f"data.max_bad_shards must lie between 0 and 1, not {max_bad_shards}")
        if not copies_gb > 0:
            raise UserError(f"data.copies_gb must be positive, not {copies_gb}")
        folder = None if copies is None else check_folder("data.copies", copies)
        self._copies = None if folder is None else Copies(folder, round(copies_gb * 1e9))
        if val_shards is None and not 0 < val_share < 1:
            raise UserError(f"data.val_share must lie between 0 and 1, both excluded, not {val_share}")
        self.shards = shards
        self.val_shards = val_shards
        self.val_share = val_share
        self.size = size if isinstance(size, int) else self._sizes.sizes
        self.batch_size = batch_size
        self.workers = workers
        self.samples_per_epoch = samples_per_epoch
        self.shuffle_buffer = shuffle_buffer
        self.flip = flip
        self.seed = seed
        self._skipped = SkippedPictures(max_corrupt)
        held_out = () if val_shards is None else tuple(list_shards(val_shards, "data.val_shards"))
        # a pattern for all shards may take in those that are held out
        training = tuple(shard for shard in list_shards(shards, "data.shards") if shard not in set(held_out))
        if not training:
            raise UserError(f"data.shards '{shards}' names no shard but those of data.val_shards '{val_shards}'")
        self._training, self._held_out = training, held_out
        self._picture, self._max_bad_shards = picture, max_bad_shards
        self.texts = texts
        self._texts = None if texts is None else TextPlace.of(texts, "data.texts", shards=True)
        self.embeddings = embeddings
        self._embeddings = None if embeddings is None else EmbeddingPlace.of(embeddings, "data.embeddings")
        self._indices: dict[tuple[str, ...], ShardIndex] = {}
        self._told: set[str | FindingKind] = set()
        self.classes = class_names(training, "data.shards")
        if val_shards is not None:
            theirs = class_names(held_out, "data.val_shards")
            same_classes("data.val_shards", (shards, self.classes), (val_shards, theirs))

    def train_dataloader(self) -> Loader:
        train, _ = self._split()
        pictures = self.samples_per_epoch or _count(train)
        if pictures is None:
            raise UserError(
                f"data.samples_per_epoch must be given for data.shards '{self.shards}', which are no local files: "
                "the number of training pictures in them"
            )
        rank, processes = world()  # asked here, for a worker may not know
        # how many pictures have which size is not known
        batches = int(pictures / (np.mean(self._sizes.batch_sizes) * processes))
        if batches == 0:
            raise UserError(
                f"data.batch_size {self.batch_size} (in each of {processes} processes) is more than the {pictures} "
                f"training pictures of data.shards '{self.shards}': lower it, or add pictures"
            )
        decoder = self._decoder(self._random(self.flip), "train")
        stream = TrainingStream(decoder, train, rank, processes, batches, self.shuffle_buffer)
        return self._loader(stream, batches, training=True)

    def val_dataloader(self) -> Loader:
        _, held_out = self._split()
        return self._ordered(held_out, self._centred(), "val", split=True)

    def training_crops_dataloader(self) -> Loader:
        train, _ = self._split()
        shards = random.Random(self.seed).sample(train.shards, len(train.shards))
        mixed = dataclasses.replace(train, shards=tuple(shards))
        return self._ordered(mixed, self._random(self.flip), "measure", buffer=self.shuffle_buffer)

    def export_dataloader(self) -> Loader:
        every = self._part(self._training).counted(self._index(self._training))
        return self._ordered(every, self._centred(), "export")

    def export_source(self, split: Literal["all", "train", "val"]) -> TarPictures:
        return self._exported(split, self._centred(), f"centre {self.size}")

    def training_views(self, crops: int, flip: bool) -> TarPictures:
        described = f"random {self.size} {crops} {flip} {self.seed}"
        return self._exported("train", self._random(flip), described, crops)

    @property
    def skipped(self) -> list[str]:
        return self._skipped.keys

    def description(self) -> dict[str, Any]:
        how = "the last shards" if self._held_out_shards() else "pictures by hash of the key"
        index = self._indices.get(self._training)
        return {
            "kind": "webdataset",
            "shards": self.shards,
            "pictures": None if index is None else sum(map(len, index.hashes.values())),
            "classes": None if self.classes is None else len(self.classes),
            "split": {"held_out": self.val_shards or f"{how}, {self.val_share:g}"},
            "size": self.size,
            "crops": crops_in_words(self.size),
            "flip": self.flip,
            "skipped": self.skipped,
            "seed": self.seed,
        }

    def _held_out_shards(self) -> int:
        """How many whole shards are held out."""
        return int(self.val_share * len(self._training) + 1e-9)

    def _split(self) -> tuple[ShardSplit, ShardSplit]:
        """The training and the held-out pictures."""
        shards = self._training
        last = self._held_out_shards()
        index = self._index(shards)
        if self._held_out:
            held_out = self._part(self._held_out).counted(self._index(self._held_out))
            return self._part(shards).counted(index), held_out
        if last and last < len(shards):
            parts = self._part(shards[:-last]), self._part(shards[-last:])
        else:
            below = self.val_share
            index = self._index(shards, costly=True)
            if index is not None:
                below = held_out_below(np.concatenate(list(index.hashes.values())), self.val_share)
            parts = self._part(shards, above=below), self._part(shards, up_to=below)
        return parts[0].counted(index), parts[1].counted(index)

    def _exported(self, split: str, crops: Sequence[Crop], described: str, views: int = 1) -> TarPictures:
        part = self._part(self._training) if split == "all" else self._split()[0 if split == "train" else 1]
        shards = self._held_out if self._held_out and split == "val" else self._training
        index = self._index(shards, costly=True)
        if index is None and self._copies is None:
            raise UserError(
                "an export counts the pictures before it reads them: give a folder for copies of shards behind "
                "addresses (data.copies), or fetch those of data.shards (or data.val_shards) first"
            )
        index = index or ShardIndex.of(shards, self._picture, self._copies)
        part = part.counted(index)
        _count(part)
        described += "" if self.texts is None else f" texts {self.texts}"
        described += "" if self.embeddings is None else f" embeddings {self.embeddings}"
        return TarPictures(self._decoder(crops, "export"), part, index, self._skipped, described, views)

    def _part(self, shards: tuple[str, ...], above: float = -1.0, up_to: float = 1.0) -> ShardSplit:
        bears = self._max_bad_shards > 0
        return ShardSplit(shards, above, up_to, self._picture, bears, copies=self._copies, embeddings=self.embeddings)

    def _index(self, shards: tuple[str, ...], costly: bool = False) -> ShardIndex | None:
        """The keys in local shards; None for others, and where the user says how many there are."""
        if any(map(is_address, shards)) or not (costly or self.samples_per_epoch is None):
            return None
        if shards not in self._indices:
            self._indices[shards] = ShardIndex.of(shards, self._picture)
        return self._indices[shards]

    def _centred(self) -> list[Crop]:
        return [CentreCrop(size) for size in self.sizes]

    def _random(self, flip: bool) -> list[Crop]:
        return [RandomCrop(size, flip) for size in self.sizes]

    def _decoder(self, crops: Sequence[Crop], purpose: str) -> SampleDecoder:
        side = 2 * self._sizes.largest
        told = self.classes, self._texts, self._embeddings
        return SampleDecoder(crops, self._sizes, side, self.seed, purpose, *told)

    def _ordered(
        self, part: ShardSplit, crops: Sequence[Crop], purpose: str, split: bool = False, buffer: int = 0
    ) -> Loader:
        rank, processes = world() if split else (0, 1)
        count = _count(part) if self.samples_per_epoch is None else None
        if len(self._sizes) > 1:  # how many pictures have which size is not known
            count = None
        length = None if count is None else math.ceil(math.ceil(count / processes) / self.batch_size)
        stream = OrderedStream(self._decoder(crops, purpose), part, rank, processes, buffer)
        return self._loader(stream, length)

    def _loader(self, stream: Stream, length: int | None, training: bool = False) -> Loader:
        indices = [self._index(shards) for shards in (self._training, self._held_out) if shards]
        pictures = [0 if index is None else sum(map(len, index.hashes.values())) for index in indices]
        return Loader(
            stream,
            self._skipped,
            total=(self.samples_per_epoch or _UNKNOWN_TOTAL) if None in indices else sum(pictures),
            batch_size=self.batch_size,
            workers=self.workers,
            training=training,
            length=length,
            tell=self._tell,
        )

    def _tell(self, finding: Finding) -> None:
        """Warn of each kind of finding once, and of each shard that is left out, unless these are too many."""
        unreadable = finding.kind is FindingKind.UNREADABLE
        which = finding.shard if unreadable else finding.kind
        if which in self._told:
            return
        self._told.add(which)
        bad, shards = sum(isinstance(each, str) for each in self._told), len(self._training) + len(self._held_out)
        if unreadable and bad > self._max_bad_shards * shards:
            raise UserError(
                f"{bad} or more of {shards} shards are unreadable, which is past data.max_bad_shards "
                f"{self._max_bad_shards:g}; {finding.text}"
            )
        warnings.warn(f"left out: {finding.text}" if unreadable else finding.text, stacklevel=2)


def _count(part: ShardSplit) -> int | None:
    """How many pictures it has; None where that is not known."""
    if part.pictures is None:
        return None
    if not sum(part.pictures):
        raise UserError(f"no sample of shard '{part.shards[0]}' (or those after it) holds a picture: pack others")
    return sum(part.pictures)
