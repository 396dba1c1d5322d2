"""What every source of training data must hold."""

from __future__ import annotations

import json
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule

from vltok.codes import Codes
from vltok.loading.skipping import Skipped
from vltok.pictures.images import ImageBatch, ImageData, Sample
from vltok.pictures.sizes import Sizes
from vltok.sequences.source import CodeSource


class DataContract(ABC):
    """Tests of a source of batches, of images or of codes, which the contract of either extends.

    Attributes:
        folder: An empty folder, for a source that reads files: `build` may write them there.
    """

    folder: Path

    @pytest.fixture(autouse=True)
    def _prepared(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        self.folder = tmp_path

    @abstractmethod
    def build(self) -> LightningDataModule:
        """A source of at least two training batches; the same arguments each time."""

    def test_training_repeats_from_the_start_and_each_epoch_is_another(self):
        epochs = []
        for _ in range(2):
            torch.manual_seed(0)
            loader = self.build().train_dataloader()
            epochs.append([_described(loader) for _ in range(2)])
        assert len(epochs[0][0]) >= 2
        assert epochs[0] == epochs[1], "the same seed gave other training batches"
        assert epochs[0][0] != epochs[0][1], "two epochs have the same batches in the same order"

    def test_held_out_batches_are_the_same_each_time(self):
        data = self.build()
        first = _described(data.val_dataloader())
        torch.manual_seed(1)
        assert first and _described(data.val_dataloader()) == first
        assert _described(self.build().val_dataloader()) == first

    def test_lengths_are_the_numbers_of_batches(self):
        data = self.build()
        loaders = [data.train_dataloader(), data.val_dataloader()]
        if isinstance(data, ImageData) and len(data.sizes) > 1:
            loaders.pop()  # a stream does not know beforehand how many pictures have which size
        for loader in loaders:
            assert len(loader) == len(list(loader))

    def test_processes_can_have_it(self):
        data = self.build()
        copy = pickle.loads(pickle.dumps(data))
        assert _described(copy.val_dataloader()) == _described(data.val_dataloader())


class ImageDataContract(DataContract):
    """Tests of a source of images, which a test class inherits."""

    @abstractmethod
    def build(self) -> ImageData:
        """A source of at least two training batches, whose pictures can all be read; the same arguments each time."""

    def test_batches_are_images(self):
        data = self.build()
        full = dict(zip(data.sizes, Sizes.of(data.size, data.batch_size).batch_sizes, strict=True))
        for loader in (data.train_dataloader(), data.val_dataloader(), data.training_crops_dataloader()):
            for batch in loader:
                assert isinstance(batch, ImageBatch) and 1 <= len(batch) <= full.get(tuple(batch.images.shape[2:]), 0)
                assert batch.images.shape[:2] == (len(batch), 3)
                assert batch.images.dtype == torch.float32
                assert batch.images.min() >= -1 and batch.images.max() <= 1
                assert len(batch.keys) == len(batch)
        for batch in data.train_dataloader():
            assert len(batch) == full[tuple(batch.images.shape[2:])], "a training batch is not full"

    def test_labels_are_classes(self):
        data = self.build()
        for batch in data.train_dataloader():
            if data.classes is None:
                assert batch.labels is None
            else:
                assert batch.labels is not None and batch.labels.shape == (len(batch),)
                assert batch.labels.min() >= 0 and batch.labels.max() < len(data.classes)

    def test_no_picture_is_both_trained_on_and_held_out(self):
        data = self.build()
        held_out = set(_keys(data.val_dataloader()))
        assert held_out
        for loader in (data.train_dataloader(), data.training_crops_dataloader()):
            assert not held_out & set(_keys(loader))

    def test_crops_for_measuring_are_fresh_and_the_same_each_time(self):
        data = self.build()
        first = _described(data.training_crops_dataloader())
        assert first and _described(data.training_crops_dataloader()) == first

    def test_the_export_gives_every_picture_once_in_its_order(self):
        data = self.build()
        keys = [key for batch in sorted(data.export_dataloader(), key=_size_of) for key in batch.keys]
        assert keys and len(set(keys)) == len(keys)
        assert _described(data.export_dataloader()) == _described(data.export_dataloader())
        every = list(data.export_source("all").read(range(len(keys))))
        assert [sample.key for sample in sorted(every, key=_size_of)] == keys

    def test_each_split_can_be_exported(self):
        data = self.build()
        found = {}
        for split in ("all", "train", "val"):
            source = data.export_source(split)
            assert source.pictures >= 1 and isinstance(source.described, str)
            assert list(source.keys()) == list(source.keys())
            samples = list(source.read(range(source.pictures)))
            assert len(samples) == source.pictures
            assert not any(isinstance(sample, Skipped) for sample in samples)
            for sample in samples:
                assert isinstance(sample, Sample) and sample.pixels.shape in {(3, *size) for size in data.sizes}
                assert (sample.label is None) == (data.classes is None)
            found[split] = {sample.key for sample in samples}
            middle = math.ceil(source.pictures / 2)
            assert [sample.key for sample in source.read(range(middle, source.pictures))] == [
                sample.key for sample in samples[middle:]
            ]
        assert not found["train"] & found["val"], "a picture is exported for training and as held out"

    def test_it_describes_itself(self):
        data = self.build()
        list(data.val_dataloader())
        described = data.description()
        assert described and json.loads(json.dumps(described)) is not None
        assert data.skipped == []


class CodeDataContract(DataContract):
    """Tests of a source of codes, which a test class inherits."""

    @abstractmethod
    def build(self) -> CodeSource:
        """A source of at least two training batches, with held-out sequences; the same arguments each time."""

    def test_batches_are_codes_as_it_says(self):
        data = self.build()
        assert data.held_out is not None
        for loader, sequences in ((data.train_dataloader(), data.training), (data.val_dataloader(), data.held_out)):
            facts = sequences.facts
            for batch in loader:
                assert isinstance(batch, Codes) and len(batch) >= 1
                batch.validate(facts.spec)
                grid = facts.spec.regions if batch.grains is None else tuple(batch.grains.shape[1:])
                assert replace(facts.spec, regions=grid).longest_length >= batch.lengths.max()
                assert facts.labelled == (batch.labels is not None)
                assert facts.described == (batch.texts is not None)
                assert facts.embedding_size == (None if batch.embeddings is None else batch.embeddings.shape[1])
                if facts.classes is not None and facts.labelled:
                    assert batch.labels.min() >= 0 and batch.labels.max() < len(facts.classes)

    def test_sequences_are_read_in_the_order_asked_for(self):
        for sequences in (self.build().training, self.build().held_out):
            grids = sequences.grid_numbers()
            assert len(sequences.facts.grids) == (grids.max() + 1 if sequences.facts.spec.gridded else 0)
            for number in np.unique(grids):
                chosen = np.flatnonzero(grids == number)[::-1].copy()
                codes = sequences[chosen]
                assert codes.validate(sequences.facts.spec).lengths.tolist() == sequences.lengths[chosen].tolist()
                assert codes.grains is None or codes.grains.shape[1:] == sequences.facts.grids[number]
                assert sequences[chosen[-1:]].equal(codes[-1])
            assert sequences.shard_starts[0] == 0 and sequences.shard_starts[-1] == len(sequences)

    def test_both_parts_are_of_one_tokenizer(self):
        data = self.build()
        first, second = data.training.facts, data.held_out.facts
        assert (first.tokenizer, first.spec) == (second.tokenizer, second.spec)


def _size_of(thing: ImageBatch | Sample) -> tuple[int, ...]:
    """The height and width of a batch or a picture."""
    return tuple((thing.images if isinstance(thing, ImageBatch) else thing.pixels).shape[-2:])


def _keys(loader: Iterable[ImageBatch]) -> list[str]:
    return [key for batch in loader for key in batch.keys]


def _described(loader: Iterable[ImageBatch | Codes]) -> list[list]:
    """The contents of batches, which can be compared."""
    described = []
    for batch in loader:
        values = [batch.images, batch.labels] if isinstance(batch, ImageBatch) else [batch.ids, batch.lengths]
        keys = batch.keys if isinstance(batch, ImageBatch) else []
        described.append([keys, *(None if value is None else value.tolist() for value in values)])
    return described
