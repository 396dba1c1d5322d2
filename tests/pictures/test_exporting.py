import pickle
from pathlib import Path

import pytest
import torch

from vltok.cli.main import main
from vltok.errors import UserError
from vltok.loading.skipping import Skipped
from vltok.pictures.exporting import export_batches
from vltok.pictures.folder import Folder
from vltok.pictures.images import ExportSource, ImageData, Sample
from vltok.pictures.photos import HELD_OUT, Photos
from vltok.pictures.shards import WebDataset


@pytest.fixture
def root(tree) -> Path:
    """Twelve pictures, of which the third cannot be read."""
    root = tree(classes=3, each=4)
    sorted(root.rglob("*.jpg"))[2].write_bytes(b"no picture")
    return root


@pytest.fixture(params=["folder", "webdataset", "photos"])
def data(request: pytest.FixtureRequest, root: Path, tmp_path: Path, recwarn) -> ImageData:
    common = {"size": 32, "batch_size": 4, "workers": 0}
    if request.param == "photos":
        return Photos(**common, train_crops=20, val_crops=7)
    if request.param == "folder":
        return Folder(str(root), **common, val_share=0.3)
    assert main(["pack", str(root), str(tmp_path / "packed"), "--count", "5"]) == 0
    return WebDataset(str(tmp_path / "packed" / "*.tar"), **common, val_share=0.3)


def read(source: ExportSource) -> list[Sample | Skipped]:
    return list(source.read(range(source.pictures)))


def test_a_source_is_the_export_of_its_data(data: ImageData) -> None:
    found = [item for item in read(data.export_source("all")) if isinstance(item, Sample)]
    batches = list(data.export_dataloader())
    assert [sample.key for sample in found] == [key for batch in batches for key in batch.keys]
    pixels = torch.cat([batch.images for batch in batches])
    assert torch.equal(torch.stack([sample.pixels for sample in found]).float() / 127.5 - 1, pixels)


def test_any_places_can_be_read(data: ImageData) -> None:
    source = data.export_source("all")
    every = read(source)
    places = [1, 2, source.pictures - 1]
    for item, place in zip(source.read(places), places, strict=True):
        assert (type(item), item.key) == (type(every[place]), every[place].key)
        assert isinstance(item, Skipped) or torch.equal(item.pixels, every[place].pixels)
    assert list(source.read([])) == []


def test_training_and_held_out_pictures_are_parts_of_all(data: ImageData) -> None:
    keys = {split: [item.key for item in read(data.export_source(split))] for split in ("all", "train", "val")}
    assert all(keys.values())
    assert not set(keys["train"]) & set(keys["val"])
    if isinstance(data, Photos):
        assert len(keys["train"]) == 20 and len(keys["val"]) == 7
        assert {key.partition("-")[0] for key in keys["val"]} == {name.partition(".")[0] for name in HELD_OUT}
    else:
        assert sorted(keys["train"] + keys["val"]) == sorted(keys["all"])


def test_held_out_pictures_are_those_of_validation(data: ImageData, recwarn) -> None:
    source = data.export_source("val")
    found = {item.key: item.pixels for item in read(source) if isinstance(item, Sample)}
    for batch in data.val_dataloader():
        for key, image in zip(batch.keys, batch.images, strict=True):
            assert torch.equal(found[key].float() / 127.5 - 1, image)


def test_sources_tell_themselves_apart(data: ImageData) -> None:
    sources = [data.export_source(split) for split in ("all", "train", "val")]
    assert len({(source.described, *source.keys()) for source in sources}) == 3
    assert len(list(sources[0].keys())) == sources[0].pictures


def test_sources_go_to_other_processes(data: ImageData) -> None:
    source = data.export_source("all")
    assert [item.key for item in read(pickle.loads(pickle.dumps(source)))] == [item.key for item in read(source)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_span_parts_and_keep_places(root: Path, workers: int, recwarn) -> None:
    source = Folder(str(root), size=32, workers=0).export_source("all")
    parts = [range(0, 5), range(7, 12)]
    batches = list(export_batches(source, parts, batch_size=2, workers=workers))
    assert [batch.places for batch in batches] == [[0, 1], [3], [4], [7, 8], [9, 10], [11]]
    skipped = [picture for batch in batches for picture in batch.skipped]
    keys = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.jpg"))]
    assert [(picture.index, picture.key) for picture in skipped] == [(2, keys[2])]
    for batch in batches:
        assert batch.images.keys == [keys[place] for place in batch.places]
        assert batch.images.labels.tolist() == [place // 4 for place in batch.places]
    assert "skipped the corrupt picture" in str(recwarn[0].message)


def test_a_batch_of_corrupt_pictures_has_no_images(root: Path, recwarn) -> None:
    source = Folder(str(root), size=32, workers=0).export_source("all")
    (batch,) = export_batches(source, [range(2, 3)], batch_size=2, workers=0)
    assert batch.images is None and batch.places == [] and len(batch.skipped) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_corrupt_pictures_are_an_error(root: Path, workers: int, recwarn) -> None:
    source = Folder(str(root), size=32, workers=0, max_corrupt=0.0).export_source("all")
    with pytest.raises(UserError, match=r"past data\.max_corrupt 0"):
        list(export_batches(source, [range(12)], batch_size=2, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_arrive_as_they_were(root: Path, tmp_path: Path, workers: int) -> None:
    assert main(["pack", str(root), str(tmp_path / "packed")]) == 0
    source = WebDataset(str(tmp_path / "packed" / "*.tar"), size=32, workers=0).export_source("all")
    for shard in (tmp_path / "packed").glob("*.tar"):
        shard.write_bytes(b"no shard")
    with pytest.raises(UserError, match="cannot be read") as caught:
        list(export_batches(source, [range(4)], batch_size=2, workers=workers))
    assert "Traceback" not in str(caught.value)
