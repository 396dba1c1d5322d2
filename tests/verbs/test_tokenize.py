from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from tests.sequences.code_exports import settings
from vltok.errors import UserError
from vltok.loading.skipping import Skipped, SkippedPictures
from vltok.pictures.images import ExportSource, Sample
from vltok.pictures.photos import Photos
from vltok.sequences.export import CodeExport
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.stored import stored_sequences
from vltok.tokenizers.dqvae import DQVAE
from vltok.verbs.coding import decode, encode
from vltok.verbs.inputs import Opened
from vltok.verbs.tokenize import tokenize, write_codes


@pytest.fixture
def opened(tokenizer: DQVAE) -> Opened[DQVAE]:
    return Opened(tokenizer, "memory", "0" * 64, "cpu")


@pytest.fixture
def source() -> ExportSource:
    return Photos(size=32, val_crops=10, batch_size=4).export_source("val")


class Breaking(ExportSource):
    """A source that breaks down at some place."""

    def __init__(self, source: ExportSource, place: int) -> None:
        self._source, self._place = source, place

    @property
    def pictures(self) -> int:
        return self._source.pictures

    @property
    def skipped(self) -> SkippedPictures:
        return self._source.skipped

    @property
    def described(self) -> str:
        return self._source.described

    def keys(self) -> Iterable[str]:
        return self._source.keys()

    def read(self, places: Iterable[int]) -> Iterator[Sample | Skipped]:
        for item, place in zip(self._source.read(range(self.pictures)), range(self.pictures), strict=True):
            if place == self._place:
                raise UserError("the disk went away")
            yield item


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_codes_are_written_and_reported(
    opened: Opened[DQVAE], source: ExportSource, precision: str, tmp_path: Path
) -> None:
    tokenizer = opened.model
    export = CodeExport(tmp_path, tokenizer.spec, settings(10, 6, precision=precision))
    reported: list[int] = []
    write_codes(opened, source, export, workers=0, report=reported.append)
    export.finish()
    assert reported == [4, 2, 4]
    images = torch.cat([batch.images for batch in Photos(size=32, val_crops=10).val_dataloader()])
    # in the batches of the export: arithmetic may depend on them
    parts = [encode(tokenizer.encode, part, precision, "cpu") for part in images.split([4, 2, 4])]
    found = stored_sequences(tmp_path)[torch.arange(10).numpy()]
    assert found.ids.tolist() == [code for part in parts for code in part.ids.tolist()]


def test_what_was_finished_before_a_failure_stays(opened: Opened[DQVAE], source: ExportSource, tmp_path: Path) -> None:
    export = CodeExport(tmp_path, opened.model.spec, settings(10, 3))
    with pytest.raises(UserError, match="the disk went away"):
        write_codes(opened, Breaking(source, 7), export, workers=0, report=print)
    assert export.pending() == [2, 3]
    write_codes(opened, source, export, workers=0, report=print)
    assert export.finish() is not None


def test_samples_are_decoded_as_their_codes_are(
    tokenizer: DQVAE, opened: Opened[DQVAE], source: ExportSource, tmp_path: Path
) -> None:
    export = CodeExport(tmp_path, tokenizer.spec, settings(10, 10))
    write_codes(opened, source, export, workers=0, report=print)
    export.finish()
    manifest = CodeManifest.read(tmp_path)
    samples = list(manifest.read_samples(tmp_path, manifest.shards[0]))[4:8]
    images = torch.cat([batch.images for batch in Photos(size=32, val_crops=10).val_dataloader()])[4:8]
    with torch.inference_mode():
        assert torch.equal(decode(tokenizer, samples, "cpu"), tokenizer.decode(tokenizer.encode(images)))


def test_a_notebook_gives_objects_and_gets_the_manifest(tokenizer: DQVAE, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    tokenizer.train()
    data = Photos(size=32, val_crops=10, batch_size=4)
    found = tokenize(tokenizer, data, tmp_path / "codes", split="val", progress=lambda *numbers: told.append(numbers))
    assert found.new and tokenizer.training
    assert found.manifest.statistics["samples"] == 10
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)]
    again = tokenize(tokenizer, data, tmp_path / "codes", split="val")
    assert not again.new and again.manifest == found.manifest


def test_data_may_be_named_as_in_a_recipe(tokenizer: DQVAE, tmp_path: Path) -> None:
    arguments = {"size": 32, "val_crops": 3, "batch_size": 4}
    named = tokenize(tokenizer, {"class_path": "photos", "init_args": arguments}, tmp_path / "a", split="val")
    built = tokenize(tokenizer, Photos(**arguments), tmp_path / "b", split="val")
    assert named.manifest.shards == built.manifest.shards
    assert named.manifest.settings.options["--data.val_crops"] == 3 and named.manifest.settings.alike(
        built.manifest.settings
    )


def test_wrong_arguments_are_user_errors(tokenizer: DQVAE, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--shard-size must be at least 1, not 0"):
        tokenize(tokenizer, "photos", tmp_path, shard_size=0)
    with pytest.raises(UserError, match="did you mean 'photos'"):
        tokenize(tokenizer, "photo", tmp_path)
    with pytest.raises(UserError, match=r"no --split is called 'vall'.*did you mean 'val'"):
        tokenize(tokenizer, "photos", tmp_path, split="vall")
    with pytest.raises(UserError, match="no --precision is called 'float64'"):
        tokenize(tokenizer, "photos", tmp_path, precision="float64")


def test_a_rate_is_met_and_recorded(tokenizer: DQVAE, tmp_path: Path) -> None:
    data = Photos(size=32, val_crops=10, batch_size=4)
    counts = {}
    for rate in ("codes=22", "max-codes=22", "mean-codes=30"):
        manifest = tokenize(tokenizer, data, tmp_path / rate, split="val", rate=rate, device="cpu").manifest
        assert manifest.settings.options["--rate"] == rate
        counts[rate] = manifest.statistics["length"]
    assert counts["codes=22"]["minimum"] == counts["codes=22"]["maximum"] == 22
    assert counts["max-codes=22"]["maximum"] <= 22
    assert abs(counts["mean-codes=30"]["mean"] - 30) <= 1 and counts["mean-codes=30"]["variance"] > 0
    assert not tokenize(tokenizer, data, tmp_path / "codes=22", split="val", rate="codes=22", device="cpu").new
    with pytest.raises(UserError, match="--rate"):
        tokenize(tokenizer, data, tmp_path / "codes=22", split="val", rate="codes=25", device="cpu")
    with pytest.raises(UserError, match="no rate is called"):
        tokenize(tokenizer, data, tmp_path / "none", rate="kodes=3", device="cpu")
    assert not (tmp_path / "none").exists()
