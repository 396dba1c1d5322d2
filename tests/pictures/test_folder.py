"""A folder of images: labels, splits, order, and what is wrong with some."""

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from vltok.errors import UserError
from vltok.pictures.folder import Folder
from vltok.pictures.images import ImageBatch

Tree = Callable[..., Path]


def folder(root: Path, **changes: object) -> Folder:
    return Folder(**{"root": str(root), "size": 32, "batch_size": 4, "workers": 0, "val_share": 0.3} | changes)


def keys_of(batches) -> list[str]:
    return [key for batch in batches for key in batch.keys]


def labels_of(batches: list[ImageBatch]) -> dict[str, int]:
    return {key: int(label) for batch in batches for key, label in zip(batch.keys, batch.labels, strict=True)}


def relative_paths(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))


def test_subfolders_are_classes(tree: Tree) -> None:
    data = folder(tree(classes=3))
    assert data.classes == ["class0", "class1", "class2"]
    for loader in (data.export_dataloader(), data.train_dataloader(), data.val_dataloader()):
        for key, label in labels_of(list(loader)).items():
            assert key.startswith(f"class{label}/")


def test_a_flat_folder_has_no_classes(tree: Tree) -> None:
    data = folder(tree(classes=0, each=9))
    assert data.classes is None
    assert next(iter(data.export_dataloader())).labels is None


def test_pictures_beside_classes_make_them_no_classes(tree: Tree, astronaut: Image.Image) -> None:
    root = tree()
    astronaut.save(root / "stray.png")
    with pytest.warns(UserWarning, match="of data.root .* 1 picture lies outside"):
        data = folder(root)
    assert data.classes is None
    assert "stray.png" in keys_of(data.export_dataloader())


def test_export_gives_every_picture_once_in_order(tree: Tree) -> None:
    root = tree()
    assert keys_of(folder(root).export_dataloader()) == relative_paths(root)


def test_split_is_by_file_and_the_same_again(tree: Tree) -> None:
    root = tree(each=8)
    data = folder(root)
    held_out = keys_of(data.val_dataloader())
    training = keys_of(data.training_crops_dataloader())
    assert sorted(held_out + training) == relative_paths(root)
    assert 0 < len(held_out) < len(training)
    assert keys_of(folder(root, seed=7).val_dataloader()) == held_out
    assert set(keys_of(data.train_dataloader())) <= set(training)


def test_crops_for_measuring_mix_the_classes(tree: Tree) -> None:
    first = next(iter(folder(tree(each=8), batch_size=8).training_crops_dataloader()))
    assert len(set(first.labels.tolist())) == 3


def test_validation_folder_of_its_own(tree: Tree) -> None:
    root, val_root = tree(name="train"), tree(name="val", classes=2)
    data = folder(root, val_root=str(val_root))
    assert keys_of(data.val_dataloader()) == relative_paths(val_root)
    assert sorted(keys_of(data.training_crops_dataloader())) == relative_paths(root)
    assert set(labels_of(list(data.val_dataloader())).values()) == {0, 1}


def test_flat_validation_folder_has_no_labels(tree: Tree) -> None:
    data = folder(tree(name="train"), val_root=str(tree(name="val", classes=0)))
    assert next(iter(data.val_dataloader())).labels is None


def test_validation_classes_must_be_known(tree: Tree) -> None:
    with pytest.raises(UserError, match=r"data\.val_root .* has classes that data\.root .* has not: class2"):
        folder(tree(name="train", classes=2), val_root=str(tree(name="val", classes=3)))


def test_hidden_and_other_files_are_left_out_and_links_followed(tree: Tree, tmp_path: Path) -> None:
    root = tree(classes=1)
    (root / "class0" / "._picture.jpg").write_bytes(b"not a picture")
    (root / ".cache").mkdir()
    (root / ".cache" / "thumb.jpg").write_bytes(b"not a picture")
    (root / "class0" / "notes.txt").write_text("not a picture")
    elsewhere = tree(classes=0, name="elsewhere")
    (root / "class1").symlink_to(elsewhere)
    (root / "class1" / "loop").symlink_to(root)
    keys = keys_of(folder(root).export_dataloader())
    assert len(keys) == 8
    assert {key.partition("/")[0] for key in keys} == {"class0", "class1"}


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_picture_is_left_out_of_the_export_and_shifts_no_label(tree: Tree, workers: int) -> None:
    root = tree()
    whole = {key: image for b in folder(root).export_dataloader() for key, image in zip(b.keys, b.images, strict=True)}
    bad = root / "class1" / "picture 05.v1.jpg"
    bad.write_bytes(bad.read_bytes()[:-500])
    data = folder(root, workers=workers)
    with pytest.warns(UserWarning, match=r"class1/picture 05\.v1\.jpg: .*truncated"):
        batches = list(data.export_dataloader())
    labels = labels_of(batches)
    assert list(labels) == [path for path in relative_paths(root) if path != "class1/picture 05.v1.jpg"]
    assert all(key.startswith(f"class{label}/") for key, label in labels.items())
    for batch in batches:
        for key, image in zip(batch.keys, batch.images, strict=True):
            assert torch.equal(image, whole[key])
    assert data.skipped == ["class1/picture 05.v1.jpg"]


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_picture_is_replaced_in_training(tree: Tree, workers: int) -> None:
    root = tree(each=8)
    training = keys_of(folder(root).training_crops_dataloader())
    bad = training[::12]
    for name in bad:
        (root / name).write_bytes(b"")
    data = folder(root, workers=workers)
    with pytest.warns(UserWarning, match="the file is empty"):
        batches = list(data.train_dataloader()) + list(data.train_dataloader())
    assert all(len(batch) == 4 for batch in batches)
    assert not set(keys_of(batches)) & set(bad)
    assert set(data.skipped) <= set(bad)
    assert data.skipped


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:skipped")
def test_too_many_corrupt_pictures_are_one_clear_error(tree: Tree, workers: int) -> None:
    root = tree(each=8)
    for name in relative_paths(root)[::2]:
        (root / name).write_bytes(b"broken")
    data = folder(root, workers=workers)
    for loader in (data.train_dataloader(), data.export_dataloader()):
        with pytest.raises(UserError, match=r"of 24 pictures cannot be read, .* data\.max_corrupt 0\.01") as error:
            list(loader)
        assert "Traceback" not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:skipped")
def test_any_share_may_be_corrupt_but_not_all(tree: Tree) -> None:
    root = tree()
    paths = relative_paths(root)
    for name in paths[1:]:
        (root / name).write_bytes(b"broken")
    data = folder(root, max_corrupt=1.0)
    assert keys_of(data.export_dataloader()) == paths[:1]
    (root / paths[0]).write_bytes(b"broken")
    with pytest.raises(UserError, match="no picture can be read; the first that cannot is class0/picture 00"):
        list(folder(root, max_corrupt=1.0).export_dataloader())
    with pytest.raises(UserError, match="no picture can be read"):
        list(folder(root, max_corrupt=1.0).train_dataloader())


def test_a_sound_folder_gives_no_warning(tree: Tree) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder(tree()).skipped == []


def test_one_picture_can_be_exported_but_not_split(tree: Tree) -> None:
    data = folder(tree(classes=0, each=1))
    assert len(keys_of(data.export_dataloader())) == 1
    with pytest.raises(UserError, match=r"1 picture is too few .*data\.val_root"):
        data.train_dataloader()


@pytest.mark.parametrize("workers", [1, 2])
def test_no_crop_depends_on_the_workers(tree: Tree, workers: int) -> None:
    root = tree()
    alone, helped = folder(root), folder(root, workers=workers)
    for name in ("train_dataloader", "val_dataloader", "training_crops_dataloader", "export_dataloader"):
        pairs = zip(getattr(alone, name)(), getattr(helped, name)(), strict=True)
        assert all(torch.equal(one.images, other.images) and one.keys == other.keys for one, other in pairs)


def test_bad_folders(tree: Tree, tmp_path: Path) -> None:
    missing, empty, file = tmp_path / "missing", tmp_path / "empty", tmp_path / "file.jpg"
    empty.mkdir()
    file.write_bytes(b"")
    with pytest.raises(UserError, match=r"data\.root '.*missing' does not exist: give a folder of pictures"):
        folder(missing)
    with pytest.raises(UserError, match=r"data\.root '.*empty' holds no picture: .* \.jpg"):
        folder(empty)
    with pytest.raises(UserError, match=r"data\.root '.*file\.jpg' is a file, not a folder"):
        folder(file)
    with pytest.raises(UserError, match=r"data\.val_root '.*missing' does not exist"):
        folder(tree(), val_root=str(missing))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"data\.size must be at least 1, not 0"),
        ({"val_share": 1.5}, r"data\.val_share must lie between 0 and 1"),
        ({"max_corrupt": -1.0}, r"data\.max_corrupt must lie between 0 and 1"),
    ],
)
def test_bad_arguments(tree: Tree, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        folder(tree(), **arguments)


def test_batch_larger_than_the_folder(tree: Tree) -> None:
    with pytest.raises(UserError, match=r"data\.batch_size 40 is more than the \d training crops"):
        folder(tree(), batch_size=40).train_dataloader()


def test_description_is_json_and_the_data_can_be_pickled(tree: Tree) -> None:
    data = folder(tree())
    assert json.loads(json.dumps(data.description()))["pictures"] == 12
    assert pickle.loads(pickle.dumps(data)).classes == data.classes


def test_pictures_held_out_inside_the_root_are_not_trained_on(tree: Tree) -> None:
    root = tree(name="pictures", classes=0)
    (root / "val").mkdir()
    for path in sorted(root.glob("*"))[:2]:
        if path.is_file():
            path.rename(root / "val" / path.name)
    data = folder(root, val_root=str(root / "val"))
    held_out = set(keys_of(data.val_dataloader()))
    trained = set(keys_of(data.training_crops_dataloader()))
    assert held_out and trained
    assert not {f"val/{key}" for key in held_out} & trained
    assert data.classes is None
    with pytest.raises(UserError, match=r"no picture may be on both sides"):
        folder(root / "val", val_root=str(root))
