"""The embedded photographs: those in scikit-image's and scikit-learn's wheels."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64
from PIL import Image

from vltok.errors import UserError
from vltok.loading.checks import check_at_least, check_loading
from vltok.loading.skipping import SkippedPictures
from vltok.pictures.batches import Loader, places_of
from vltok.pictures.crops import Crops, Pictures
from vltok.pictures.decoding import CorruptPicture, decode
from vltok.pictures.exporting import CroppedPictures
from vltok.pictures.images import ImageData
from vltok.pictures.sizes import Sizes
from vltok.pictures.transforms import CentreCrop, Crop, ScaledCrop

#: A package, a folder in it, and the distribution that brings it.
_Source = tuple[str, str, str]
_SKIMAGE = ("skimage", "data", "scikit-image")
_SKLEARN = ("sklearn", "datasets/images", "scikit-learn")

#: The photographs to train on, by file name. Neither wheel's drawings, patterns, holograms and pages of text are here.
TRAINING = {
    "astronaut.png": _SKIMAGE,
    "brick.png": _SKIMAGE,
    "camera.png": _SKIMAGE,
    "clock_motion.png": _SKIMAGE,
    "coins.png": _SKIMAGE,
    "flower.jpg": _SKLEARN,
    "grass.png": _SKIMAGE,
    "gravel.png": _SKIMAGE,
    "hubble_deep_field.jpg": _SKIMAGE,
    "ihc.png": _SKIMAGE,
    "moon.png": _SKIMAGE,
    "motorcycle_left.png": _SKIMAGE,  # the two of a stereo pair must stay on one side
    "motorcycle_right.png": _SKIMAGE,
    "retina.jpg": _SKIMAGE,
    "rocket.jpg": _SKIMAGE,
}

#: The photographs that training never sees: an animal, a building under a sky, a cup on a table.
HELD_OUT = {
    "chelsea.png": _SKIMAGE,
    "china.jpg": _SKLEARN,
    "coffee.png": _SKIMAGE,
}


class Photos(ImageData):
    """Random crops of the real photographs inside scikit-image's and scikit-learn's wheels; held out by photograph.

    Args:
        size: Side of a crop in pixels; or several sizes, each a height and a width, such as
            ``[[64, 64], [48, 80], [80, 48]]``: the crops of a photograph have them in turn, and a batch has one of
            them. A photograph that is exported as a whole gets the one whose aspect ratio is nearest.
        batch_size: Images of a batch; of the first size, where there are several: batches of others have as many
            pixels.
        workers: Processes that crop in the background; 0 crops in the main one, which is fast enough for these.
        scales: Smallest and largest side of a crop within its photograph, in multiples of `size`: crops are resized,
            so that a few photographs give many different ones.
        train_crops: Crops of an epoch, spread evenly over the training photographs.
        val_crops: Crops of the held-out photographs, spread evenly over them.
        seed: Sets the crops.

    Raises:
        UserError: A number out of its range.
    """

    def __init__(
        self,
        size: int | list[tuple[int, int]] = 64,
        batch_size: int = 32,
        workers: int = 0,
        scales: tuple[float, float] = (1.0, 4.0),
        train_crops: int = 3200,
        val_crops: int = 192,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_loading(batch_size, workers, seed)
        self._sizes = Sizes.of(size, batch_size)
        check_at_least("train_crops", train_crops, batch_size)
        check_at_least("val_crops", val_crops, 1)
        if not 0 < scales[0] <= scales[1]:
            raise UserError(f"data.scales must be two positive numbers, the smaller first, not {list(scales)}")
        self.size = size if isinstance(size, int) else self._sizes.sizes
        self.batch_size = batch_size
        self.workers = workers
        self.classes = None
        self.scales = (scales[0], scales[1])
        self.train_crops = train_crops
        self.val_crops = val_crops
        self.seed = seed
        self._skipped = SkippedPictures(max_corrupt=0.0)

    def train_dataloader(self) -> Loader:
        return self._loader(self._scaled("train", TRAINING, self.train_crops), self.seed, "drop")

    def val_dataloader(self) -> Loader:
        return self._loader(self._scaled("val", HELD_OUT, self.val_crops), split="pad")

    def training_crops_dataloader(self) -> Loader:
        return self._loader(self._scaled("measure", TRAINING, self.train_crops))

    def export_dataloader(self) -> Loader:
        return self._loader(self._centred())

    def export_source(self, split: Literal["all", "train", "val"]) -> CroppedPictures:
        """Each photograph once, or the crops of a training epoch, or those of validation."""
        if split == "all":
            return CroppedPictures(self._centred(), self._skipped, f"centre {self.size}")
        crops = self._scaled("val", HELD_OUT, self.val_crops)
        if split == "train":
            crops = self._scaled("export", TRAINING, self.train_crops)
        return CroppedPictures(crops, self._skipped, f"{self.scales} {self.seed} {self.size}")

    @property
    def skipped(self) -> list[str]:
        return self._skipped.keys

    def description(self) -> dict[str, Any]:
        low, high = self.scales
        return {
            "kind": "photos",
            "pictures": len(TRAINING) + len(HELD_OUT),
            "split": {"train": list(TRAINING), "held_out": list(HELD_OUT)},
            "size": self.size,
            "crops": f"random {'squares' if isinstance(self.size, int) else 'parts'} of {low:g} to {high:g} times the "
            "size, resized to it; "
            f"{self.train_crops} for training an epoch, {self.val_crops} held out",
            "seed": self.seed,
        }

    def _scaled(self, purpose: str, photographs: Mapping[str, _Source], count: int) -> Crops:
        """So many crops of photographs in turn, of the sizes in turn."""
        crops = [ScaledCrop(size, self.scales, flip=purpose != "val") for size in self.sizes]
        numbers = np.arange(count) // len(photographs) % len(crops)
        return self._crops(_Photographs(photographs, count), crops, purpose, numbers)

    def _centred(self) -> Crops:
        """Each photograph."""
        every = _Photographs(TRAINING | HELD_OUT, len(TRAINING | HELD_OUT))
        crops = [CentreCrop(size) for size in self.sizes]
        return self._crops(every, crops, "export", self._sizes.nearest(every.shapes))

    def _crops(
        self, pictures: _Photographs, crops: Sequence[Crop], purpose: str, numbers: Int64[np.ndarray, " n"]
    ) -> Crops:
        return Crops(pictures, crops, numbers if len(crops) > 1 else None, seed=self.seed, purpose=purpose)

    def _loader(self, crops: Crops, seed: int | None = None, split: str | None = None) -> Loader:
        return Loader(
            crops,
            self._skipped,
            total=len(TRAINING | HELD_OUT),
            batch_size=self.batch_size,
            workers=self.workers,
            places=places_of(len(crops), crops.numbers, self._sizes, seed=seed, split=split),
            training=crops.purpose == "train",
        )


class _Photographs(Pictures):
    """The photographs in turn, as often as it takes to come to `count`."""

    def __init__(self, photographs: Mapping[str, _Source], count: int) -> None:
        self._names = [Path(name).stem for name in photographs]
        self._images = [_photograph(name, *source) for name, source in photographs.items()]
        self._count = count

    @property
    def shapes(self) -> Int64[np.ndarray, "n 2"]:
        """The height and width of each photograph."""
        return np.array([(image.height, image.width) for image in self._images], dtype=np.int64)

    def __len__(self) -> int:
        return self._count

    def key(self, index: int) -> str:
        turn, place = divmod(index, len(self._names))
        return f"{self._names[place]}-{turn}" if turn else self._names[place]

    def label(self, index: int) -> None:
        return None

    def read(self, index: int) -> Image.Image:
        return self._images[index % len(self._images)]


@functools.cache  # 25 MB in all; every loader shares them
def _photograph(name: str, package: str, folder: str, distribution: str) -> Image.Image:
    # finding a package does not import it: scikit-learn would take a second
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else spec.submodule_search_locations or []
    path = next((path for place in places if (path := Path(place) / folder / name).is_file()), None)
    if path is None:
        raise UserError(
            f"the photograph {name} is not in the installed {distribution}: reinstall it "
            f"(pip install --force-reinstall {distribution}), or give pictures of your own (--data folder)"
        )
    try:
        return decode(path)
    except CorruptPicture as error:
        raise UserError(f"{path} is damaged ({error}): pip install --force-reinstall {distribution}") from error
