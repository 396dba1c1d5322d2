"""Every registered source of data holds the contract, and the contract finds what is broken."""

import dataclasses
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as skimage_data
from torch.utils.data import DataLoader, RandomSampler

from vltok.codes import CodeSpec
from vltok.loading.skipping import SkippedPictures
from vltok.pictures.batches import Loader, Places
from vltok.pictures.crops import Crops, Pictures
from vltok.pictures.exporting import CroppedPictures
from vltok.pictures.folder import Folder
from vltok.pictures.images import ImageData, collate
from vltok.pictures.photos import Photos
from vltok.pictures.shards import WebDataset
from vltok.pictures.transforms import CentreCrop, RandomCrop
from vltok.registry import components
from vltok.sequences.data import CodeData
from vltok.sequences.source import CodeSequences
from vltok.testing import CodeDataContract, ImageDataContract

from ..sequences.code_exports import export_codes, export_samples, mixed_samples, random_codes
from .broken import assert_found

SIZES = [(16, 16), (16, 24), (24, 16)]


def picture(index: int) -> Image.Image:
    height, width = [(40, 56), (40, 60), (60, 42), (44, 46)][index % 4]
    return Image.fromarray(np.roll(skimage_data.chelsea(), 31 * index, axis=1)[:height, :width])


def write_folder(root: Path) -> None:
    for index in range(15):
        path = root / f"class{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index).save(path)


def write_shard(folder: Path) -> None:
    with tarfile.open(folder / "train-000.tar", "w") as tar:
        for index in range(20):
            file = io.BytesIO()
            picture(index).save(file, "PNG")
            for extension, content in {"png": file.getvalue(), "cls": str(index % 3).encode()}.items():
                header = tarfile.TarInfo(f"train/{index:04d}.{extension}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    (folder / "classes.json").write_text('["a", "b", "c"]')


class TestPhotos(ImageDataContract):
    def build(self):
        return Photos(size=16, batch_size=4, train_crops=20, val_crops=6)


class TestFolder(ImageDataContract):
    def build(self):
        write_folder(self.folder / "pictures")
        return Folder(str(self.folder / "pictures"), val_share=0.3, size=16, batch_size=4, workers=0)


class TestWebDataset(ImageDataContract):
    def build(self):
        write_shard(self.folder)
        return WebDataset(str(self.folder / "train-*.tar"), val_share=0.3, size=16, batch_size=4, workers=0)


class TestPhotosOfSeveralSizes(ImageDataContract):
    def build(self):
        return Photos(size=SIZES, batch_size=4, train_crops=60, val_crops=7)


class TestFolderOfSeveralSizes(ImageDataContract):
    def build(self):
        write_folder(self.folder / "pictures")
        return Folder(str(self.folder / "pictures"), val_share=0.3, size=SIZES, batch_size=2, workers=0)


class TestWebDatasetOfSeveralSizes(ImageDataContract):
    def build(self):
        write_shard(self.folder)
        shards = str(self.folder / "train-*.tar")
        return WebDataset(shards, val_share=0.3, size=SIZES, batch_size=2, workers=0, shuffle_buffer=4)


class TestCodeData(CodeDataContract):
    def build(self):
        for name, count in (("train", 9), ("val", 5)):
            if not (self.folder / name).exists():
                export_codes(self.folder / name, random_codes(count), classes=9)
        return CodeData(str(self.folder / "train"), str(self.folder / "val"), batch_size=3, workers=0)


class TestCodeDataOfSeveralGrids(CodeDataContract):
    def build(self):
        for name, count in (("train", 9), ("val", 5)):
            if not (self.folder / name).exists():
                export_samples(self.folder / name, mixed_samples(count, [(2, 3), (3, 2)]))
        return CodeData(str(self.folder / "train"), str(self.folder / "val"), batch_size=3, workers=0)


class Swatches(ImageData):
    """Twelve plain pictures, of which four are held out.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.size, self.batch_size, self.workers = 8, 4, 0
        self.classes = ["only"] if fault == "unlabelled" else None
        self._skipped = SkippedPictures(0.0)

    def train_dataloader(self) -> Loader | DataLoader:
        first = 6 if self.fault == "leaking" else 4
        if self.fault == "drawn":
            generator = torch.Generator()
            generator.seed()
            samples = list(self._crops(range(4, 12)).__getitem__((index, 0)).sample for index in range(8))
            sampler = RandomSampler(samples, generator=generator)
            return DataLoader(samples, batch_size=4, sampler=sampler, collate_fn=collate)
        return self._loader(range(8) if self.fault == "leaking" else range(first, 12), "train", seed=0, training=True)

    def val_dataloader(self) -> Loader:
        return self._loader(range(4), "val")

    def training_crops_dataloader(self) -> Loader:
        return self._loader(range(4, 12), "measure")

    def export_dataloader(self) -> Loader:
        return self._loader([0, *range(12)] if self.fault == "twice" else range(12), "export")

    def export_source(self, split: str) -> CroppedPictures:
        chosen = {"all": range(12), "train": range(4, 12), "val": range(4)}[split]
        if self.fault == "mislaid" and split == "train":
            chosen = range(2, 12)
        return CroppedPictures(self._crops(chosen), self._skipped, "whole")

    @property
    def skipped(self) -> list[str]:
        return self._skipped.keys

    def description(self) -> dict:
        return {"kind": "swatches", "sizes": {8} if self.fault == "indescribable" else [8]}

    def _crops(self, chosen) -> Crops:
        return Crops(_Swatches(list(chosen)), CentreCrop(8), seed=0, purpose="export")

    def _loader(self, chosen, purpose: str, seed: int | None = None, training: bool = False) -> Loader:
        crop = RandomCrop(12 if self.fault == "large" else 8, flip=True) if training else CentreCrop(8)
        crops = Crops(_Swatches(list(chosen)), crop, seed=0, purpose=purpose)
        places = Places(len(crops), seed=None if self.fault == "unshuffled" else seed)
        options = {"total": 12, "batch_size": 4, "workers": 0}
        if self.fault == "unshuffled":
            places.start = lambda epoch, taken=0: None
        return Loader(crops, self._skipped, places=places, training=training, **options)


class _Swatches(Pictures):
    def __init__(self, chosen: list[int]) -> None:
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def key(self, index: int) -> str:
        return f"swatch {self.chosen[index]}"

    def label(self, index: int) -> None:
        return None

    def read(self, index: int) -> Image.Image:
        return Image.new("RGB", (8, 8), (20 * self.chosen[index], 100, 0))


class TestSwatches(ImageDataContract):
    def build(self):
        return Swatches()


def test_every_registered_source_is_held_to_a_contract(tmp_path):
    registered = {component.load() for component in components("data") if component.distribution == "vltok"}
    held = set()
    for contract in (*ImageDataContract.__subclasses__(), *CodeDataContract.__subclasses__()):
        tests = contract()
        tests.folder = tmp_path / contract.__name__
        tests.folder.mkdir()
        held.add(type(tests.build()))
    assert {source for source in held if source.__module__.startswith("vltok.")} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("drawn", "test_training_repeats_from_the_start_and_each_epoch_is_another"),
        ("unshuffled", "test_training_repeats_from_the_start_and_each_epoch_is_another"),
        ("large", "test_batches_are_images"),
        ("unlabelled", "test_labels_are_classes"),
        ("leaking", "test_no_picture_is_both_trained_on_and_held_out"),
        ("twice", "test_the_export_gives_every_picture_once_in_its_order"),
        ("mislaid", "test_each_split_can_be_exported"),
        ("indescribable", "test_it_describes_itself"),
    ],
)
def test_the_contract_finds_a_source_that_is(fault, test):
    assert_found(TestSwatches, test, lambda: Swatches(fault))


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("foreign", "test_batches_are_codes_as_it_says"),
        ("endless", "test_lengths_are_the_numbers_of_batches"),
        ("drifting", "test_held_out_batches_are_the_same_each_time"),
    ],
)
def test_the_contract_finds_codes_that_are(fault, test, tmp_path):
    class Fine(TestCodeData):
        folder = tmp_path

    def build():
        tests = Fine()
        data = tests.build()
        if fault == "foreign":
            facts = dataclasses.replace(data.training.facts, spec=CodeSpec(10, (8, 16), regions=(2, 3)))
            data.training = _Foreign(data.training, facts)
        if fault == "endless":
            data.val_dataloader = lambda: _Unsized(CodeData.val_dataloader(data))
        if fault == "drifting":
            loader = data.train_dataloader()
            data.val_dataloader = lambda: loader
        return data

    assert_found(Fine, test, build)


class _Foreign(CodeSequences):
    """Sequences that are said to be something else."""

    def __init__(self, sequences, facts) -> None:
        self.sequences, self._facts = sequences, facts

    @property
    def facts(self):
        return self._facts

    @property
    def lengths(self):
        return self.sequences.lengths

    @property
    def shard_starts(self):
        return self.sequences.shard_starts

    def __getitem__(self, indices):
        return self.sequences[indices]


class _Unsized:
    def __init__(self, loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return 1000

    def __iter__(self):
        return iter(self.loader)
