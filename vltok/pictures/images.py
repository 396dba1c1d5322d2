"""What a source of images offers to the rest of vltok. Axis letters: b image, H W pixels, e number of an embedding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from lightning.pytorch import LightningDataModule
from torch import Tensor

from vltok.errors import UserError
from vltok.loading.skipping import Skipped, SkippedPictures
from vltok.pictures.sizes import Size
from vltok.pictures.transforms import to_unit_range

#: Which pictures of a source an export takes.
SPLITS = ("all", "train", "val")


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture, decoded and cropped.

    Attributes:
        key: What names it within its source, such as a relative path.
        pixels: `[3 H W]` in 0 … 255.
        label: Its class, an index into the classes of its source, or None.
        text: What describes it, or None.
        embedding: Its embedding, or None.
    """

    key: str
    pixels: UInt8[Tensor, "3 H W"]
    label: int | None = None
    text: str | None = None
    embedding: Float32[np.ndarray, " e"] | None = None


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """A batch of images of one size.

    Attributes:
        images: `[b 3 H W]` in [-1, 1].
        labels: The class of each image, `[b]`, or None where the source has none.
        keys: What names each picture within its source.
        texts: What describes each image, empty where nothing does, or None where nothing describes any.
        embeddings: The embedding of each image, `[b e]`, or None where the source has none. They stay on the host.
    """

    images: Float[Tensor, "b 3 H W"]
    labels: Int[Tensor, " b"] | None
    keys: list[str]
    texts: tuple[str, ...] | None = None
    embeddings: Float[Tensor, "b e"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same batch on a device."""
        # only copies from pinned memory to an accelerator may overlap safely with what follows
        wait_not = torch.device(device).type == "cuda"
        labels = None if self.labels is None else self.labels.to(device, non_blocking=wait_not)
        return replace(self, images=self.images.to(device, non_blocking=wait_not), labels=labels)

    def pin_memory(self) -> ImageBatch:
        """The same batch in page-locked memory, from which copies to an accelerator are fast."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return replace(self, images=self.images.pin_memory(), labels=labels)


def collate(samples: Sequence[Sample]) -> ImageBatch:
    """Pictures of one size as a batch.

    Raises:
        UserError: Some have a label and some do not, or embeddings are of several sizes.
    """
    labels = [sample.label for sample in samples]
    unlabelled = [sample.key for sample in samples if sample.label is None]
    if 0 < len(unlabelled) < len(samples):
        raise UserError(
            f"picture {unlabelled[0]} has no class, though others of its batch have one: "
            "give every picture a class, or none"
        )
    return ImageBatch(
        images=to_unit_range(torch.stack([sample.pixels for sample in samples])),
        labels=None if unlabelled else torch.tensor(labels),
        keys=[sample.key for sample in samples],
        texts=tuple(sample.text or "" for sample in samples) if any(sample.text for sample in samples) else None,
        embeddings=_stacked(samples),
    )


def _stacked(samples: Sequence[Sample]) -> Float[Tensor, "b e"] | None:
    """The embeddings of a batch, of which every picture has one, or none has."""
    found = [(sample.key, sample.embedding) for sample in samples if sample.embedding is not None]
    for key, embedding in found[1:]:
        if len(embedding) != len(found[0][1]):
            first = f"that of {found[0][0]} has {len(found[0][1])}"
            raise UserError(f"the embedding of {key} has {len(embedding)} numbers, but {first}: all must have as many")
    return torch.from_numpy(np.stack([embedding for _, embedding in found])) if found else None


class ExportSource(ABC):
    """Pictures in a fixed order, each cropped in one fixed way: what `vltok tokenize` reads.

    Attributes:
        pictures: How many there are, those that cannot be read included.
        skipped: Counts the pictures that cannot be read.
        described: What the crops follow from, besides the pictures.
        views: How many of them are crops of one file, one after another.
    """

    pictures: int
    skipped: SkippedPictures
    described: str
    views: int = 1

    @abstractmethod
    def keys(self) -> Iterable[str]:
        """The keys of all pictures, in order, or what else tells them from those of another source."""

    @abstractmethod
    def read(self, places: Iterable[int]) -> Iterator[Sample | Skipped]:
        """The pictures at some places, which ascend, or why they cannot be read.

        Raises:
            UserError: The source itself cannot be read.
        """


@runtime_checkable
class TrainingViews(Protocol):
    """What data may have besides: several random crops of each training picture, for an export."""

    def training_views(self, crops: int, flip: bool) -> ExportSource:
        """So many random crops of each training picture, one after another; half of them mirrored, with `flip`.

        Raises:
            UserError: It cannot be known beforehand how many pictures there are.
        """


class ImageData(LightningDataModule, ABC):
    """A source of images: of training pictures, and of held-out ones that training never sees.

    Across devices, training and validation batches are split between processes; training crops for measuring and the
    export are the same in each.

    Attributes:
        size: Side of a crop in pixels; or several heights and widths, to the nearest of which each picture is cropped.
        batch_size: Images of a batch of the first size, in each process: those of others have as many pixels.
        workers: Processes that decode in the background; 0 decodes in the main one. No crop depends on it.
        classes: The names of the classes that labels index, or None where pictures have none.
    """

    size: int | tuple[Size, ...]
    batch_size: int
    workers: int
    classes: list[str] | None

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The height and width of crops, in pixels; a batch has one of them."""
        return ((self.size, self.size),) if isinstance(self.size, int) else self.size

    @abstractmethod
    def train_dataloader(self) -> Iterable[ImageBatch]:
        """Random crops of the training pictures, mirrored or not, shuffled; other ones each epoch. Batches are full."""

    @abstractmethod
    def val_dataloader(self) -> Iterable[ImageBatch]:
        """Crops of the held-out pictures, the same each time."""

    @abstractmethod
    def training_crops_dataloader(self) -> Iterable[ImageBatch]:
        """Crops of the training pictures, drawn as training draws them but none that it sees, the same each time.

        Pictures come mixed, so that the first batches tell of all: take as many as the measurement or calibration
        needs. There is one epoch of them.
        """

    @abstractmethod
    def export_dataloader(self) -> Iterable[ImageBatch]:
        """Every readable picture once, in the order of the source, resized and cropped at the centre.

        Where there are several sizes, the order is that of the source within each.
        """

    @abstractmethod
    def export_source(self, split: Literal["all", "train", "val"]) -> ExportSource:
        """All pictures, those of training, or those that are held out, in the order of the source.

        Raises:
            UserError: It cannot be known beforehand how many there are.
        """

    @property
    @abstractmethod
    def skipped(self) -> list[str]:
        """The keys of the pictures that could not be read so far, in the order in which they were met."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a file of figures says of the data: its kind and place, how many pictures, the split, the crops.

        Strings, numbers, lists and dictionaries, so that it can be written as JSON.
        """
