"""A folder of images."""

from __future__ import annotations

import functools
import itertools
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64
from PIL import Image

from vltok.errors import UserError, how_many
from vltok.loading.checks import check_loading, default_workers
from vltok.loading.pools import in_processes
from vltok.loading.skipping import SkippedPictures
from vltok.paths import read_path
from vltok.pictures.batches import Loader, places_of
from vltok.pictures.crops import Crops, Pictures
from vltok.pictures.decoding import decode, shape_of
from vltok.pictures.embeddings import EmbeddingPlace
from vltok.pictures.exporting import CroppedPictures
from vltok.pictures.finding import list_pictures
from vltok.pictures.images import ImageData
from vltok.pictures.names import Names
from vltok.pictures.sizes import Sizes, crops_in_words, in_words
from vltok.pictures.splits import held_out_below, unit_hash
from vltok.pictures.texts import TextPlace
from vltok.pictures.transforms import CentreCrop, Crop, RandomCrop

#: So few headers are read faster than processes start.
_FEW = 2000


def class_of(path: str) -> str | None:
    """The class of a picture: the first folder of its relative path, or None where it has none."""
    first, slash, _ = path.partition("/")
    return unicodedata.normalize("NFC", first) if slash else None


def classes_of(paths: Iterable[str]) -> list[str] | None:
    """The names of the classes, sorted; None unless every picture lies in a sub-folder."""
    names = [class_of(path) for path in paths]
    return None if None in names else sorted({name for name in names if name is not None})


def no_classes_remark(paths: Sequence[str], of: str = "") -> str | None:
    """What to say of sub-folders that are no classes, since only some of the pictures lie in one; else None."""
    outside = [path for path in paths if class_of(path) is None]
    if not 0 < len(outside) < len(paths):
        return None
    lie = how_many(len(outside), "picture", "lie")
    return f"the sub-folders{of} are no classes, for {lie} outside of them ({outside[0]})"


class Folder(ImageData):
    """Any tree of images; the sub-folders of its first level are the classes, if every image lies in one.

    Args:
        root: The folder.
        val_root: A folder of held-out pictures, with the same classes or none. None holds out some of `root`.
        val_share: The share of pictures of `root` to hold out, where `val_root` is None: those whose relative paths
            have the lowest hashes, at least one. Pictures that show the same thing may so fall on both sides; give
            `val_root` where that matters.
        size: Side of a crop in pixels: the shorter side is resized to it. Or several sizes, each a height and a width,
            such as ``[[64, 64], [48, 80], [80, 48]]``: each picture is resized to cover the one whose aspect ratio is
            nearest, and cropped; a batch has one of them. To know their shapes, the headers of all pictures are read
            once. Training leaves out sizes that no batch would fill: their pictures go to the next nearest.
        batch_size: Images of a batch; of the first size, where there are several: batches of others have as many
            pixels.
        workers: Processes that decode in the background; 0 decodes in the main one. None: as
            many as there are cores, up to eight.
        flip: Mirror half of the training crops left to right.
        max_corrupt: The share of pictures that may be corrupt: they are skipped, and named in a warning. In small
            sets up to three are borne (at most a quarter), unless it is 0.
        seed: Sets the crops and their order.
        texts: Where texts that describe the pictures stand: ``txt``, in `NAME.txt` beside `NAME.jpg`, or the name of a
            file of JSON lines in the folder, such as ``metadata.jsonl``, whose lines have `file_name` and `text`;
            ``metadata.jsonl:caption`` names another key. None reads none.
        embeddings: The ending of the files beside the pictures that hold their embeddings: ``npy`` for `NAME.npy`
            beside `NAME.jpg`, or one such as ``clip.npy``. Each is an array `[e]`, and every picture has one. None
            reads none.

    Raises:
        UserError: A folder that does not exist or holds no picture, or a number out of its range.
    """

    def __init__(
        self,
        root: str,
        val_root: str | None = None,
        val_share: float = 0.05,
        size: int | list[tuple[int, int]] = 256,
        batch_size: int = 32,
        workers: int | None = None,
        flip: bool = True,
        max_corrupt: float = 0.01,
        seed: int = 0,
        texts: str | None = None,
        embeddings: str | None = None,
    ) -> None:
        super().__init__()
        workers = default_workers() if workers is None else workers
        check_loading(batch_size, workers, seed)
        self._sizes = Sizes.of(size, batch_size)
        root, val_root = str(read_path(root)), None if val_root is None else str(read_path(val_root))
        self.root = root
        self.val_root = val_root
        self.val_share = val_share
        self.size = size if isinstance(size, int) else self._sizes.sizes
        self.batch_size = batch_size
        self.workers = workers
        self.flip = flip
        self.seed = seed
        self.texts = texts
        self._skipped = SkippedPictures(max_corrupt)
        paths = list_pictures(root, "data.root")
        self.classes = classes_of(paths)
        if (remark := no_classes_remark(paths, f" of data.root '{root}'")) is not None:
            warnings.warn(remark, stacklevel=2)
        val_paths: list[str] = []
        if val_root is not None:
            val_paths = list_pictures(val_root, "data.val_root")
            paths = _without_held_out(paths, root, val_root)
            self.classes = classes_of(paths)
            others = sorted(set(classes_of(val_paths) or ()) - set(self.classes or ()))
            if others and self.classes is not None:
                raise UserError(
                    f"data.val_root '{val_root}' has classes that data.root '{root}' has not: "
                    f"{', '.join(others[:5])}{' …' if len(others) > 5 else ''}; name its sub-folders as in data.root"
                )
        elif not 0 < val_share < 1:
            raise UserError(f"data.val_share must lie between 0 and 1, both excluded, not {val_share}")
        self._texts: dict[str, Callable[[str], str | None]] = {}
        if texts is not None:
            place = TextPlace.of(texts, "data.texts", shards=False)
            self._texts[root] = place.of_folder(root, paths)
            if val_root is not None:
                self._texts[val_root] = place.of_folder(val_root, val_paths)
        self.embeddings = embeddings
        self._embeddings = None if embeddings is None else EmbeddingPlace.of(embeddings, "data.embeddings")
        if self._embeddings is not None:  # where they are missing altogether, it is told now
            self._embeddings.of_file(root, paths[0])
        self._paths, self._val_paths = Names(paths), Names(val_paths)
        self._shapes: dict[str, Int64[np.ndarray, "n 2"]] = {}

    def train_dataloader(self) -> Loader:
        train, _ = self._split()
        return self._loader(train, self._random(self.flip), "train", self.seed, "drop")

    def val_dataloader(self) -> Loader:
        _, held_out = self._split()
        return self._loader(held_out, self._centred(), "val", split="pad")

    def training_crops_dataloader(self) -> Loader:
        train, _ = self._split()
        return self._loader(train, self._random(self.flip), "measure", self.seed)

    def export_dataloader(self) -> Loader:
        every = self._files(self.root, self._paths)
        return self._loader(every, self._centred(), "export")

    def export_source(self, split: Literal["all", "train", "val"]) -> CroppedPictures:
        if split == "all":
            pictures = self._files(self.root, self._paths)
        else:
            pictures = self._split()[0 if split == "train" else 1]
        crops = self._crops(pictures, self._centred(), "export")
        return CroppedPictures(crops, self._skipped, f"centre {self.size}{self._of_conditions}")

    def training_views(self, crops: int, flip: bool) -> CroppedPictures:
        train, _ = self._split()
        views = self._crops(train, self._random(flip), "export")
        described = f"random {self.size} {crops} {flip} {self.seed}{self._of_conditions}"
        return CroppedPictures(views, self._skipped, described, crops)

    @property
    def skipped(self) -> list[str]:
        return self._skipped.keys

    def description(self) -> dict[str, Any]:
        held_out = f"by hash of the relative path, {self.val_share:g}" if self.val_root is None else self.val_root
        return {
            "kind": "folder",
            "root": self.root,
            "pictures": len(self._paths),
            "classes": None if self.classes is None else len(self.classes),
            "split": {"held_out": held_out},
            "size": self.size,
            "crops": crops_in_words(self.size),
            "flip": self.flip,
            "skipped": self.skipped,
            "seed": self.seed,
        }

    def _split(self) -> tuple[_Files, _Files]:
        """The training and the held-out pictures."""
        if self.val_root is not None:
            return self._files(self.root, self._paths), self._files(self.val_root, self._val_paths)
        hashes = np.array([unit_hash(path) for path in self._paths])
        held_out = hashes <= held_out_below(hashes, self.val_share)
        return self._files(self.root, self._paths, ~held_out), self._files(self.root, self._paths, held_out)

    @property
    def _of_conditions(self) -> str:
        """What an export's description says of texts and embeddings."""
        texts = "" if self.texts is None else f" texts {self.texts}"
        return texts if self.embeddings is None else f"{texts} embeddings {self.embeddings}"

    def _files(self, root: str, paths: Names, chosen: Bool[np.ndarray, " n"] | None = None) -> _Files:
        """Those of the pictures under a folder that are chosen; all by default."""
        shapes = None
        if len(self._sizes) > 1:
            if root not in self._shapes:
                self._shapes[root] = _read_shapes(root, paths, self.workers)
            shapes = self._shapes[root] if chosen is None else self._shapes[root][chosen]
        some = paths if chosen is None else Names(itertools.compress(paths, chosen))
        return _Files(root, some, self.classes, self._texts.get(root), self._embeddings, self._sizes.largest, shapes)

    def _centred(self) -> list[Crop]:
        return [CentreCrop(size) for size in self.sizes]

    def _random(self, flip: bool) -> list[Crop]:
        return [RandomCrop(size, flip) for size in self.sizes]

    def _crops(self, pictures: _Files, crops: Sequence[Crop], purpose: str) -> Crops:
        numbers = None if pictures.shapes is None else self._sizes.nearest(pictures.shapes)
        if purpose == "train" and numbers is not None and pictures.shapes is not None:
            nearest, numbers = numbers, self._sizes.nearest(pictures.shapes, filling=True)
            for number in np.setdiff1d(nearest, numbers):
                few = how_many(int((nearest == number).sum()), "training picture")
                warnings.warn(
                    f"{few} of data.root '{self.root}' nearest to "
                    f"{in_words(self._sizes.sizes[number])} would not fill a batch: they get the next nearest size",
                    stacklevel=2,
                )
        replace = purpose in ("train", "measure")
        return Crops(
            pictures,
            crops,
            numbers,
            seed=self.seed,
            purpose=purpose,
            replace=replace,
            texts=pictures.texts,
            embeddings=pictures.embeddings,
        )

    def _loader(
        self, pictures: _Files, crops: Sequence[Crop], purpose: str, seed: int | None = None, split: str | None = None
    ) -> Loader:
        dataset = self._crops(pictures, crops, purpose)
        return Loader(
            dataset,
            self._skipped,
            total=len(self._paths) + len(self._val_paths),
            batch_size=self.batch_size,
            workers=self.workers,
            places=places_of(len(dataset), dataset.numbers, self._sizes, seed=seed, split=split),
            training=purpose == "train",
        )


class _Files(Pictures):
    """Picture files under a folder; their heights and widths where they were asked for."""

    def __init__(
        self,
        root: str,
        paths: Names,
        classes: list[str] | None,
        texts: Callable[[str], str | None] | None,
        embeddings: EmbeddingPlace | None,
        size: int,
        shapes: Int64[np.ndarray, "n 2"] | None,
    ) -> None:
        self._root = root
        self._paths = paths
        self.texts = texts
        self.embeddings = None if embeddings is None else functools.partial(embeddings.of_file, root)
        self.shapes = shapes
        self._least_side = 2 * size  # twice what is needed, so that resizing still has pixels to average
        # a folder without classes, beside one that has them, has none
        self._labels: dict[str | None, int] | None = None
        if classes is not None and classes_of(paths) is not None:
            self._labels = {name: number for number, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self._paths)

    def key(self, index: int) -> str:
        return self._paths[index]

    def label(self, index: int) -> int | None:
        return None if self._labels is None else self._labels[class_of(self._paths[index])]

    def read(self, index: int) -> Image.Image:
        return decode(os.path.join(self._root, self._paths[index]), self._least_side)


def _read_shapes(root: str, paths: Names, workers: int) -> Int64[np.ndarray, "n 2"]:
    """The heights and widths of pictures; what is none is met when it is decoded, and counts as a square."""
    few = len(paths) < _FEW
    found = in_processes(
        functools.partial(_shape_of, root), paths, 0 if few else workers, chunk=256, option="data.workers"
    )
    return np.array([shape or (1, 1) for shape in found], dtype=np.int64)


def _shape_of(root: str, path: str) -> tuple[int, int] | None:
    return shape_of(os.path.join(root, path))


def _without_held_out(paths: list[str], root: str, val_root: str) -> list[str]:
    """The pictures of `root` that do not lie in `val_root`: held-out pictures are never trained on."""
    outer, inner = Path(root).resolve(), Path(val_root).resolve()
    if outer == inner or inner in outer.parents:
        raise UserError(f"data.root '{root}' lies in data.val_root '{val_root}': no picture may be on both sides")
    if outer not in inner.parents:
        return paths
    prefix = f"{inner.relative_to(outer).as_posix()}/"
    left = [path for path in paths if not path.startswith(prefix)]
    if not left:
        raise UserError(f"data.root '{root}' holds no picture but those of data.val_root '{val_root}'")
    return left
