"""Tar shards: order, labels, splits between nodes and workers, and what is wrong with some."""

import itertools
import json
import math
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vltok.errors import UserError
from vltok.pictures import exporting, streams, tars
from vltok.pictures import shards as shards_module
from vltok.pictures.exporting import export_batches
from vltok.pictures.shards import WebDataset

Write = Callable[..., str]

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores


def images(pattern: str, **changes: object) -> WebDataset:
    arguments = {"shards": pattern, "size": 32, "batch_size": 4, "workers": 0, "val_share": 0.2, "shuffle_buffer": 8}
    return WebDataset(**arguments | changes)


def keys_of(batches) -> list[str]:
    return [key for batch in batches for key in batch.keys]


def number(key: str) -> int:
    return int(key.rpartition("/")[2])


def test_export_gives_every_picture_once_in_order(write: Write) -> None:
    batches = list(images(write(5, 3, 4)).export_dataloader())
    assert [number(key) for key in keys_of(batches)] == list(range(12))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [index % 3 for index in range(12)]
    assert len(images(write(5, 3, 4)).export_dataloader()) == len(batches) == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_no_order_depends_on_the_workers(write: Write, workers: int) -> None:
    pattern = write(7, 9, 2, 6)
    alone, helped = images(pattern), images(pattern, workers=workers)
    for name in ("val_dataloader", "training_crops_dataloader", "export_dataloader"):
        pairs = zip(getattr(alone, name)(), getattr(helped, name)(), strict=True)
        assert all(torch.equal(one.images, other.images) and one.keys == other.keys for one, other in pairs)


def test_a_worker_reads_no_picture_of_another(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(write(7, 9, 2, 6), val_share=0.5, batch_size=2)
    opened: list[str] = []
    content = tars._content
    monkeypatch.setattr(tars, "_content", lambda shard, tar, at: opened.append(at.name) or content(shard, tar, at))
    ways = [
        (streams, lambda: data.val_dataloader()),
        (exporting, lambda: export_batches(data.export_source("all"), [range(24)], 2, workers=0)),
    ]
    for module, batches in ways:
        every: list[str] = []
        for worker in range(3):
            monkeypatch.setattr(module, "this_worker", lambda worker=worker: (worker, 3))
            loaded = batches()
            opened.clear()
            keys = [key for batch in loaded for key in (batch if module is streams else batch.images).keys]
            assert [name for name in opened if name.endswith(".jpg")] == [f"{key}.jpg" for key in keys]
            every += keys
        assert len(every) == len(set(every)) == (8 if module is streams else 24)


def test_shards_behind_addresses_are_dealt_to_the_workers(write: Write, tmp_path: Path) -> None:
    write(3, 5, 2, name="val")
    read = tmp_path / "read"
    address = f"pipe:cat {tmp_path}/val-{{000..002}}.tar && echo >> {read}"
    data = images(write(4), val_shards=address, workers=2)
    keys = keys_of(data.val_dataloader())
    assert sorted(map(number, keys)) == list(range(10))
    assert read.read_text().count("\n") == 3


@pytest.mark.parametrize("pattern", ["train-{000..002}.tar", "train-*.tar", "train-{000,001,002}.tar", "tr*-00?.tar"])
def test_patterns(write: Write, tmp_path: Path, pattern: str) -> None:
    write(2, 2, 2)
    assert len(keys_of(images(str(tmp_path / pattern)).export_dataloader())) == 6


@pytest.mark.parametrize("shards", [(40,), (10, 10, 10, 10), (2,) * 20])
def test_held_out_pictures_are_never_trained_on(write: Write, shards: tuple[int, ...]) -> None:
    data = images(write(*shards))
    held_out = set(keys_of(data.val_dataloader()))
    trained = set(keys_of(data.training_crops_dataloader()))
    assert not held_out & trained
    assert len(held_out | trained) == 40
    assert 3 <= len(held_out) <= 14
    assert set(keys_of(data.train_dataloader())) <= trained


def test_whole_shards_are_held_out_where_there_are_many(write: Write) -> None:
    held_out = keys_of(images(write(*(2,) * 20), val_share=0.1).val_dataloader())
    assert [number(key) for key in held_out] == [36, 37, 38, 39]


def test_validation_shards_of_their_own(write: Write) -> None:
    data = images(write(6, 6), val_shards=write(5, name="val"))
    assert len(keys_of(data.training_crops_dataloader())) == 12
    assert keys_of(data.val_dataloader()) == [f"val/{index:04d}" for index in range(5)]


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("shards", [(24,), (12, 12), (5, 7, 6, 6)])
def test_an_epoch_has_every_picture_whatever_the_workers(write: Write, shards: tuple[int, ...], workers: int) -> None:
    data = images(write(*shards), val_shards=write(2, name="val"), workers=workers)
    loader = data.train_dataloader()
    seen: Counter[str] = Counter()
    for _ in range(2):
        batches = list(loader)
        assert [len(batch) for batch in batches] == [4] * len(loader) == [4] * 6
        seen.update(keys_of(batches))
    assert len(seen) == 24
    if len(shards) < workers or workers < 2:  # batches are dealt out, rather than shards of unlike sizes
        assert set(seen.values()) == {2}


def test_training_crops_change_with_the_epoch_and_repeat_with_the_seed(write: Write) -> None:
    def epochs(**changes: object) -> list[torch.Tensor]:
        loader = images(write(12, 12), **changes).train_dataloader()
        return [torch.cat([batch.images for batch in loader]) for _ in range(2)]

    first, second = epochs()
    assert not torch.equal(first, second)
    assert all(torch.equal(one, other) for one, other in zip((first, second), epochs(), strict=True))
    assert not torch.equal(first, epochs(seed=1)[0])


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("shards", [(24,), (8, 8, 8)])
def test_processes_share_the_pictures(
    write: Write, shards: tuple[int, ...], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern, val_pattern = write(*shards), write(7, name="val")
    trained, held_out, measured = [], [], []
    for rank in range(processes):
        monkeypatch.setattr(shards_module, "world", lambda rank=rank: (rank, processes))
        data = images(pattern, val_shards=val_pattern)
        trained.append(keys_of(data.train_dataloader()))
        held_out.append(keys_of(data.val_dataloader()))
        measured.append(keys_of(data.training_crops_dataloader()))
        assert len(list(data.val_dataloader())) == len(data.val_dataloader())
        assert len(data.train_dataloader()) == 24 // (4 * processes)
    assert len({len(share) for share in trained}) == 1
    if shards == (24,):
        assert len(set().union(*trained)) == 24
    assert {len(keys) for keys in held_out} == {math.ceil(7 / processes)}
    assert set(itertools.chain(*held_out)) == {f"val/{index:04d}" for index in range(7)}
    assert all(keys == measured[0] for keys in measured)


def test_epochs_of_a_given_length(write: Write) -> None:
    loader = images(write(12), samples_per_epoch=80).train_dataloader()
    assert len(loader) == len(list(loader)) == 20


def test_addresses_need_a_length(write: Write, tmp_path: Path) -> None:
    write(12)
    address = f"pipe:cat {tmp_path}/train-000.tar"
    with pytest.raises(UserError, match=r"data\.samples_per_epoch must be given"):
        images(address).train_dataloader()
    data = images(address, samples_per_epoch=8)
    assert len(keys_of(data.train_dataloader())) == 8
    assert len(keys_of(data.export_dataloader())) == 12
    with pytest.raises(TypeError, match="not known"):
        len(data.export_dataloader())


def test_labels_in_json_and_none(write: Write) -> None:
    def in_json(index: int, files: dict) -> dict:
        return {"jpg": files["jpg"], "json": json.dumps({"label": index, "caption": "coffee"}).encode()}

    batch = next(iter(images(write(4, change=in_json)).export_dataloader()))
    assert batch.labels.tolist() == [0, 1, 2, 3]
    write(4, change=lambda index, files: {"jpg": files["jpg"]}, name="bare")
    assert (
        next(iter(images(write(4, name="bare", change=lambda _, f: {"jpg": f["jpg"]})).export_dataloader())).labels
        is None
    )


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"cls": b"9223372036854775808"}, "more than 64 bits"),
        ({"json": b'{"label": true}'}, "must be a whole number, not True"),
        ({"json": b'{"label": 2.5}'}, "must be a whole number, not 2.5"),
    ],
)
def test_only_whole_numbers_of_64_bits_are_labels(write: Write, member: dict[str, bytes], message: str) -> None:
    data = images(write(4, change=lambda _, files: {"jpg": files["jpg"], **member}))
    with pytest.raises(UserError, match=message):
        list(data.export_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_label_is_one_clear_error(write: Write, workers: int) -> None:
    data = images(write(4, change=lambda _, files: files | {"cls": b"cat"}), workers=workers)
    with pytest.raises(
        UserError, match=r"sample train/0000 of shard '.*train-000\.tar' has no readable label"
    ) as error:
        list(data.export_dataloader())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 3])
def test_corrupt_picture_is_left_out_of_the_export_and_shifts_no_label(write: Write, workers: int) -> None:
    def break_one(index: int, files: dict) -> dict:
        return files | {"jpg": files["jpg"][:400]} if index == 5 else files

    data = images(write(9, 9, change=break_one), workers=workers)
    with pytest.warns(UserWarning, match=r"skipped the corrupt picture train/0005: "):
        batches = list(data.export_dataloader())
    labels = {number(key): int(label) for b in batches for key, label in zip(b.keys, b.labels, strict=True)}
    assert list(labels) == [index for index in range(18) if index != 5]
    assert all(label == index % 3 for index, label in labels.items())
    assert data.skipped == ["train/0005"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:skipped")
def test_corrupt_pictures_in_training(write: Write, workers: int) -> None:
    few = images(write(20, change=lambda i, f: f | {"jpg": b""} if i < 2 else f, name="few"), workers=workers)
    batches = [batch for _ in range(3) for batch in few.train_dataloader()]
    assert all(len(batch) == 4 for batch in batches)
    assert not {"few/0000", "few/0001"} & set(keys_of(batches))
    many = images(write(20, change=lambda i, f: f | {"jpg": b""} if i % 2 else f, name="many"), workers=workers)
    with pytest.raises(UserError, match=r"of 20 pictures cannot be read, .* data\.max_corrupt 0\.01"):
        list(many.train_dataloader())
    every = images(write(20, change=lambda _, f: f | {"jpg": b""}, name="all"), workers=workers, max_corrupt=1.0)
    with pytest.raises(UserError, match="no picture can be read"):
        list(every.train_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_truncated_shard_is_one_clear_error(write: Write, tmp_path: Path, workers: int) -> None:
    pattern = write(6, 6)
    broken = tmp_path / "train-001.tar"
    broken.write_bytes(broken.read_bytes()[:3000])
    for data in (images(pattern, workers=workers), images(pattern, workers=workers, samples_per_epoch=8)):
        with pytest.raises(UserError, match=r"shard '.*train-001\.tar' cannot be read") as error:
            list(data.export_dataloader())
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("into", [0, 100])
def test_shard_that_is_cut_between_two_files_is_one_clear_error(write: Write, tmp_path: Path, into: int) -> None:
    """Where tarfile and webdataset see no more than an earlier end."""
    pattern = write(6, 6)
    broken = tmp_path / "train-001.tar"
    with tarfile.open(broken) as tar:
        place = tar.getmembers()[4].offset
    broken.write_bytes(broken.read_bytes()[: place + into])
    with pytest.raises(UserError, match=r"train-001\.tar' cannot be read \(it was cut short"):
        list(images(pattern, workers=0).export_dataloader())
    with pytest.raises(UserError, match=r"train-001\.tar' cannot be read \(it was cut short"):
        images(pattern, workers=0).export_source("val")


def test_missing_shards(tmp_path: Path, write: Write) -> None:
    write(2)
    with pytest.raises(UserError, match=r"data\.shards '.*none-\*\.tar' matches no file"):
        images(str(tmp_path / "none-*.tar"))
    with pytest.raises(
        UserError, match=r"data\.shards '.*train-\{000\.\.001\}\.tar': '.*train-001\.tar' does not exist"
    ):
        images(str(tmp_path / "train-{000..001}.tar"))
    with pytest.raises(UserError, match=r"data\.shards '.*': .*[Bb]race"):
        images(str(tmp_path / "train-{000..001.tar"))
    with pytest.raises(UserError, match=r"data\.shards .* is a folder"):
        images(str(tmp_path))
    with pytest.raises(UserError, match=r"data\.val_shards '.*gone\.tar'"):
        images(str(tmp_path / "train-000.tar"), val_shards=str(tmp_path / "gone.tar"))


@pytest.mark.filterwarnings("ignore:.*belongs to no picture")
def test_shards_without_pictures(write: Write) -> None:
    data = images(write(3, change=lambda _, files: {"cls": files["cls"]}), val_shards=write(2, name="val"))
    with pytest.raises(UserError, match="holds a picture"):
        data.train_dataloader()


def test_batch_larger_than_the_shards(write: Write) -> None:
    with pytest.raises(UserError, match=r"data\.batch_size 40 .* is more than the \d training pictures"):
        images(write(9), batch_size=40).train_dataloader()


def test_class_names(write: Write, tmp_path: Path) -> None:
    pattern = write(3)
    assert images(pattern).classes is None
    (tmp_path / "classes.json").write_text('["cup", "spoon", "saucer"]')
    assert images(pattern).classes == ["cup", "spoon", "saucer"]
    (tmp_path / "classes.json").write_text('{"cup": 0}')
    with pytest.raises(UserError, match=r"classes\.json must hold a list of names"):
        images(pattern)


def test_description_is_json(write: Write) -> None:
    data = images(write(6, 6))
    assert json.loads(json.dumps(data.description()))["pictures"] is None
    data.train_dataloader()
    assert data.description()["pictures"] == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_share": 0.0}, r"data\.val_share must lie between 0 and 1"),
        ({"samples_per_epoch": 3}, r"data\.samples_per_epoch must be at least 4, not 3"),
        ({"shuffle_buffer": 0}, r"data\.shuffle_buffer must be at least 1, not 0"),
        ({"max_corrupt": 3.0}, r"data\.max_corrupt must lie between 0 and 1"),
    ],
)
def test_bad_arguments(write: Write, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        images(write(2), **arguments)


@pytest.mark.parametrize("apart", [False, True])
def test_keys_that_repeat_are_made_unique_by_their_shard(tmp_path: Path, write: Write, apart: bool) -> None:
    def broken(index: int, files: dict) -> dict:
        return files if index else files | {"jpg": b"broken"}

    write(12, change=broken, name="train")
    for number, name in enumerate(("a", "b", "c")):
        place = tmp_path / name / "0.tar" if apart else tmp_path / f"same-{number}.tar"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes((tmp_path / "train-000.tar").read_bytes())
    data = images(str(tmp_path / ("[abc]/0.tar" if apart else "same-*.tar")))
    with pytest.warns(UserWarning, match="skipped the corrupt picture"):
        keys = keys_of(data.export_dataloader())
    first = "a/0.tar" if apart else "same-0.tar"
    assert len(set(keys)) == 33 and f"{first}/train/0001" in keys and len(data.skipped) == 3
    held_out, trained = keys_of(data.val_dataloader()), keys_of(data.training_crops_dataloader())
    assert set(held_out).isdisjoint(trained)
    assert len({key.rpartition("/")[2] for key in held_out} & {key.rpartition("/")[2] for key in trained}) > 0
    source = data.export_source("all")
    assert len(set(source.keys())) == source.pictures == 36
    assert sum(hasattr(each, "pixels") for each in source.read(range(36))) == 33


def test_corrupt_pictures_of_one_key_are_counted_where_no_key_is_known(write: Write, tmp_path: Path) -> None:
    write(4, change=lambda index, files: files if index else {"jpg": b""}, name="a")
    for name in ("b-0.tar", "b-1.tar"):
        (tmp_path / name).write_bytes((tmp_path / "a-000.tar").read_bytes())
    data = images(f"pipe:cat {tmp_path}/b-{{0,1}}.tar", samples_per_epoch=8)
    with pytest.warns(UserWarning, match=r"b-1\.tar/a/0000"):
        assert len(keys_of(data.export_dataloader())) == 6
    assert len(data.skipped) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_set_aside_is_told_once(write: Write, tmp_path: Path, workers: int) -> None:
    def masked(index: int, files: dict) -> dict:
        return {"mask.png": files["jpg"], **files}

    pattern = write(6, 6, change=masked)
    with pytest.warns(UserWarning, match=r"'train/0000\.mask\.png' of shard .* \(12 such members in all\)") as warned:
        assert len(keys_of(images(pattern, workers=workers).export_dataloader())) == 12
    assert len(warned) == 1
    remote = images(f"pipe:cat {tmp_path}/train-{{000,001}}.tar", workers=workers, samples_per_epoch=8)
    with pytest.warns(UserWarning, match=r"mask\.png' of shard 'pipe:.*stands beside 'train/0000\.jpg'") as warned:
        assert len(keys_of(remote.export_dataloader())) == 12
    assert len(warned) == 1


def test_validation_shards_must_have_the_same_classes(write: Write, tmp_path: Path) -> None:
    train = write(3)
    (tmp_path / "classes.json").write_text('["ant", "bee", "cat"]')
    other = tmp_path / "val"
    other.mkdir()
    (tmp_path / "train-000.tar").rename(other / "val-000.tar")
    write(3)
    (other / "classes.json").write_text('["ant", "cat"]')
    with pytest.raises(UserError, match=r"data\.val_shards: .* number 1 is 'cat' here and 'bee' there"):
        images(train, val_shards=str(other / "*.tar"))
    (other / "classes.json").write_text('["ant", "bee", "cat"]')
    assert images(train, val_shards=str(other / "*.tar")).classes == ["ant", "bee", "cat"]


ELSEWHERE: dict[str, Callable[[int, dict], dict]] = {
    ".label": lambda index, files: {"jpg": files["jpg"], "label": files["cls"]},
    ".cls.txt": lambda index, files: {"jpg": files["jpg"], "cls.txt": files["cls"]},
    "json": lambda index, files: {"jpg": files["jpg"], "json": b'{"class": %d}' % (index % 3)},
}


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("samples_per_epoch", [None, 8])
def test_labels_elsewhere_are_warned_of_however_shards_are_read(
    kind: str, samples_per_epoch: int | None, write: Write
) -> None:
    with pytest.warns(UserWarning, match="is read for no label: call") as told:
        data = images(write(6, 6, change=ELSEWHERE[kind]), workers=0, samples_per_epoch=samples_per_epoch)
        assert all(batch.labels is None for batch in data.export_dataloader())
        if samples_per_epoch is None:
            data.export_source("train")
    assert sum("is read for no label" in str(each.message) for each in told) == 1
