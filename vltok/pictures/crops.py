"""Pictures that can be read in any order, and crops of them."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64
from PIL import Image
from torch.utils.data import Dataset

from vltok.loading.skipping import Skipped
from vltok.pictures.decoding import CorruptPicture
from vltok.pictures.images import Sample
from vltok.pictures.samples import Finding
from vltok.pictures.splits import key_bytes
from vltok.pictures.transforms import Crop, to_bytes_tensor

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


@dataclass(eq=False)
class Crops(Dataset[FilledPlace]):
    """Crops of pictures, by index and epoch.

    Attributes:
        pictures: What to crop.
        crops: How to crop; where there are several sizes, for each.
        numbers: Which of these each picture is cropped by; None where there is one.
        seed: Sets the random crops.
        purpose: What the crops are for: crops for different purposes differ.
        replace: Put another picture in the place of a corrupt one, rather than leaving it out.
        texts: Gives the text that describes a picture, by its key; None where nothing describes any.
        embeddings: Gives the embedding of a picture, by its key; None where there are none.
    """

    pictures: Pictures
    crops: Crop | Sequence[Crop]
    numbers: Int64[np.ndarray, " n"] | None = None
    seed: int = field(kw_only=True)
    purpose: str = field(kw_only=True)
    replace: bool = field(default=False, kw_only=True)
    texts: Callable[[str], str | None] | None = field(default=None, kw_only=True)
    embeddings: Callable[[str], Float32[np.ndarray, " e"]] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: tuple[int, int]) -> FilledPlace:
        index, epoch = place
        crops = [self.crops] if isinstance(self.crops, Crop) else self.crops
        crop = crops[0 if self.numbers is None else self.numbers[index]]  # whatever takes its place
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
            pixels = to_bytes_tensor(crop(image, generator))
            text = None if self.texts is None else self.texts(key)
            embedding = None if self.embeddings is None else self.embeddings(key)
            return FilledPlace(Sample(key, pixels, self.pictures.label(index), text, embedding), tuple(skipped))
        return FilledPlace(None, tuple(skipped))
