"""`vltok.tokenize` with several random crops of each training picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vltok.errors import UserError
from vltok.pictures.decoding import CorruptPicture
from vltok.pictures.folder import Folder
from vltok.pictures.images import ImageData
from vltok.pictures.photos import Photos
from vltok.pictures.shards import WebDataset
from vltok.tokenizers.dqvae import DQVAE
from vltok.verbs.tokenize import Tokenized, tokenize


@pytest.fixture(params=["folder", "shards"])
def data(
    request: pytest.FixtureRequest, tree: Callable[..., Path], write: Callable[..., str]
) -> Callable[..., ImageData]:
    if request.param == "folder":
        return lambda **options: Folder(str(tree()), val_share=0.3, size=32, batch_size=4, **options)
    return lambda **options: WebDataset(write(5, 5), val_share=0.3, size=32, batch_size=4, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_picture_has_so_many_crops_which_differ_and_stand_together(
    data: Callable[..., ImageData], workers: int
) -> None:
    plain = data(workers=0).export_source("train")
    source = data(workers=workers).training_views(3, True)
    assert source.pictures == 3 * plain.pictures
    centred = list(plain.read(range(plain.pictures)))
    views = list(source.read(range(source.pictures)))
    assert [view.key for view in views] == [f"{one.key}{end}" for one in centred for end in ("", "-1", "-2")]
    assert [view.label for view in views] == [one.label for one in centred for _ in range(3)]
    pictures = [torch.stack([view.pixels for view in views[at : at + 3]]) for at in range(0, len(views), 3)]
    assert any(not torch.equal(each[0], each[1]) for each in pictures)
    # chosen places have what they have among all
    places = [1, 2, source.pictures - 1]
    assert all(torch.equal(one.pixels, views[at].pixels) for one, at in zip(source.read(places), places, strict=True))


def test_codes_do_not_depend_on_the_workers(data: Callable[..., ImageData], tokenizer: DQVAE, tmp_path: Path) -> None:
    def export(out: str, workers: int) -> Tokenized:
        return tokenize(
            tokenizer, data(workers=workers), tmp_path / out, split="train", crops=2, flip=True, shard_size=5
        )

    manifest = export("one", 0).manifest
    export("other", 2)
    for shard in manifest.shards:
        assert (tmp_path / "one" / shard.name).read_bytes() == (tmp_path / "other" / shard.name).read_bytes()
    assert sum(shard.samples for shard in manifest.shards) == data(workers=0).training_views(2, True).pictures
    assert manifest.settings.options == {"--split": "train", "--crops": 2, "--flip": True}
    assert manifest.labelled


def test_an_export_that_is_stopped_goes_on_as_if_it_had_not_been(
    data: Callable[..., ImageData], tokenizer: DQVAE, tmp_path: Path
) -> None:
    def export(out: str, stop: int | None = None) -> Tokenized:
        def progress(done: int, total: int) -> None:
            if stop is not None and done >= stop:
                raise KeyboardInterrupt

        options = {"split": "train", "crops": 3, "shard_size": 7}
        return tokenize(tokenizer, data(workers=0), tmp_path / out, progress=progress, **options)

    whole = export("whole").manifest
    with pytest.raises(KeyboardInterrupt):
        export("stopped", stop=15)  # in the third shard, in the midst of a picture's crops
    assert export("stopped").manifest.shards == whole.shards
    for shard in whole.shards:
        assert (tmp_path / "whole" / shard.name).read_bytes() == (tmp_path / "stopped" / shard.name).read_bytes()


def test_other_crops_are_another_export(data: Callable[..., ImageData], tokenizer: DQVAE, tmp_path: Path) -> None:
    tokenize(tokenizer, data(workers=0), tmp_path / "out", split="train", crops=2)
    with pytest.raises(UserError, match="--crops 2, not 3"):
        tokenize(tokenizer, data(workers=0), tmp_path / "out", split="train", crops=3)


def test_one_corrupt_picture_is_counted_once(tree: Callable[..., Path]) -> None:
    root = tree()
    for path in sorted(root.rglob("*.jpg"))[:1]:
        path.write_bytes(b"x")
    source = Folder(str(root), val_root=str(tree(name="val")), size=32, batch_size=4).training_views(4, False)
    assert len({each.key for each in source.read(range(4))}) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"crops": 2}, "give --split train"),
        ({"crops": 2, "split": "val"}, "not of --split val"),
        ({"flip": True, "split": "train"}, r"--flip .*--crops 4"),
        ({"crops": 0, "split": "train"}, "--crops must be at least 1"),
        ({"crops": 2, "split": "train"}, r"Photos has no such crops; photos has --data\.train_crops"),
    ],
)
def test_crops_that_cannot_be(options: dict[str, Any], reason: str, tokenizer: DQVAE, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        tokenize(tokenizer, Photos(size=32), tmp_path / "out", **options)


def test_max_corrupt_is_a_share_of_pictures_and_not_of_crops(
    data: Callable[..., ImageData], tokenizer: DQVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(*given: Any) -> None:
        raise CorruptPicture("broken")

    monkeypatch.setattr("vltok.pictures.folder.decode", corrupt)
    monkeypatch.setattr("vltok.pictures.streams.decode", corrupt)
    plain = data(workers=0).export_source("train").pictures
    with pytest.raises(UserError, match=rf"or more of {plain} pictures cannot be read"):
        tokenize(tokenizer, data(workers=0, max_corrupt=0.2), tmp_path / "out", split="train", crops=9)
