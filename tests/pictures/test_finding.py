"""What is found below a folder: every picture once, nothing hidden, and a word on what is left out."""

import os
import random
import warnings
from pathlib import Path

import pytest

from vltok.errors import UserError
from vltok.pictures.finding import find_pictures, list_pictures
from vltok.verbs import given_pictures


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return root


def test_hidden_files_and_folders_do_not_exist(tmp_path: Path) -> None:
    kept = ("a.jpg", "b/c.PNG", "d.jpg/e.webp")
    hidden = ("._a.jpg", ".thumbnails/a.jpg", "__MACOSX/a.jpg", "b/@eaDir/c.PNG/S.jpg", "Thumbs.db", "b/.git/x.tif")
    root = put(tmp_path / ".root", *kept, *hidden)
    found = find_pictures(root)
    assert found.paths == kept
    assert not found.remark
    assert [path.relative_to(root).as_posix() for path in given_pictures.find_pictures([root], None)] == list(kept)


def test_what_is_left_out_is_counted_by_ending_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vltok.pictures.formats.register_plugins", lambda: dict.fromkeys(("pillow_heif", "pillow_jxl")))
    monkeypatch.setattr("vltok.pictures.finding.is_picture", lambda name: name.endswith(".jpg"))
    root = put(tmp_path, "a.jpg", "a.txt", "b.HEIC", "c/d.heic", "e.cr2", "scan", "a.json")
    with pytest.warns(UserWarning) as told:
        assert list_pictures(root, "data.root") == ["a.jpg"]
    (line,) = [str(warning.message) for warning in told]
    assert "2 .heic files left out: pip install pillow-heif" in line
    assert "1 .cr2 file left out: convert" in line
    assert "1 file left out: names without an ending" in line
    (root / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"holds no picture \(2 \.heic files left out: pip install pillow-heif"):
        list_pictures(root, "data.root")


def test_links_are_followed_once_and_their_cycles_end(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "z/a.jpg", "b.jpg")
    elsewhere = put(tmp_path / "elsewhere", "c.jpg")
    (root / "a_link").symlink_to(root / "z")  # comes first by name, and has nothing new
    (root / "z" / "up").symlink_to(tmp_path)
    (root / "z" / "self").symlink_to(root / "z" / "self")
    (root / "y").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "copy.jpg").symlink_to(root / "b.jpg")
    (root / "other.jpg").symlink_to(put(tmp_path, "d.jpg") / "d.jpg")
    found = find_pictures(root)
    assert found.paths == ("b.jpg", "other.jpg", "y/c.jpg", "z/a.jpg")
    assert found.repeated == ("copy.jpg",)
    assert found.closed == {"z/self": "the link leads nowhere"} and not found.left_out
    assert "links to pictures that are there already left out: 1 (copy.jpg …)" in found.remark


def test_every_picture_of_any_tree_is_found_once(tmp_path: Path) -> None:
    generator = random.Random(0)
    for turn in range(25):
        root = tmp_path / str(turn)
        folders = [root]
        for number in range(generator.randrange(1, 12)):
            folder = generator.choice(folders) / f"{generator.choice('abc.')}{number}"
            if generator.random() < 0.3:
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.symlink_to(generator.choice(folders))
            else:
                folders.append(folder)
            put(folders[-1], f"{number}.jpg", f".{number}.jpg")
        found = [os.path.realpath(root / path) for path in find_pictures(root).paths]
        visible = [
            path
            for path in map(os.path.realpath, root.rglob("*.jpg"))
            if not any(part.startswith(".") for part in Path(path).relative_to(os.path.realpath(root)).parts)
        ]
        assert len(set(found)) == len(found)
        assert set(found) >= set(visible)


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put(tmp_path, "a.jpg", "closed/b.jpg")
    look = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return look(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(UserWarning, match=r"'closed' left out: Permission denied"):
        assert list_pictures(root, "data.root") == ["a.jpg"]


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Train", "test"), ("training", "validation")])
def test_folders_of_splits_are_no_classes(train: str, val: str, tmp_path: Path) -> None:
    root = put(tmp_path, f"{train}/cat/a.jpg", f"{val}/cat/b.jpg")
    with pytest.warns(UserWarning, match=rf"give data\.root '.*/{train}', and data\.val_root '.*/{val}'"):
        list_pictures(root, "data.root")
    with pytest.warns(UserWarning, match=rf"give FOLDER '.*/{train}', and pack '.*/{val}' by itself"):
        list_pictures(root, "FOLDER")


def test_a_class_that_is_called_train_needs_no_remark(tmp_path: Path) -> None:
    root = put(tmp_path, "train/a.jpg", "plane/b.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list_pictures(root, "data.root")) == 2


def test_of_a_pattern_the_pictures_are_taken(tmp_path: Path) -> None:
    root = put(tmp_path, "a.jpg", "notes.txt", "b.dat")
    assert given_pictures.find_pictures([f"{root}/*"], None) == [root / "a.jpg"]
    assert given_pictures.find_pictures([f"{root}/*.dat"], None) == [root / "b.dat"]
