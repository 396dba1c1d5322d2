"""`vltok pack`: the same bytes again, whole or not at all, and what data webdataset reads back."""

import io
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as skimage_data

from vltok.cli.pack import run
from vltok.errors import UserError
from vltok.pictures.folder import Folder
from vltok.pictures.shards import WebDataset

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a folder of JPEGs and PNGs, in classes or flat, with names that shards cannot keep as they are."""

    def make(classes: int = 2, each: int = 4, name: str = "pictures", first_class: int = 0) -> Path:
        photograph = skimage_data.coffee()
        for index in range(max(classes, 1) * each):
            folder = tmp_path / name / (f"class {first_class + index // each}" if classes else "")
            folder.mkdir(parents=True, exist_ok=True)
            crop = np.roll(photograph, 53 * index, axis=1)[:48, :64]
            extension = ".PNG" if index % 4 == 3 else ".jpg"
            Image.fromarray(crop).save(folder / f"käse.{index:02d}{extension}")
        return tmp_path / name

    return make


def members(shards: list[Path]) -> dict[str, bytes]:
    found = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                assert member.name not in found
                found[member.name] = tar.extractfile(member).read()
    return found


def shards_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def pack(*arguments: object) -> None:
    run([*map(str, arguments), "--workers", "1"])


def test_files_are_stored_as_they_are_with_their_labels(tree: Tree, tmp_path: Path, capsys) -> None:
    root = tree()
    pack(root, tmp_path / "out", "--keep-order")
    found = members(shards_in(tmp_path / "out"))
    files = sorted(path for path in root.rglob("*") if path.is_file())
    keys = sorted({name.partition(".")[0] for name in found})
    assert len(keys) == len(files) == 8
    for key, path in zip(keys, files, strict=True):
        assert found[f"{key}.{path.suffix[1:].lower()}"] == path.read_bytes()
        assert found[f"{key}.cls"].decode() == path.parent.name[-1]
        assert path.parent.name.replace(" ", "_") in key
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["class 0", "class 1"]
    out = capsys.readouterr().out
    assert out.startswith("packed 8 pictures of 2 classes into 1 shard (")
    assert out.count("\n") == 1


def test_shards_read_back_as_the_folder(tree: Tree, tmp_path: Path) -> None:
    root = tree()
    pack(root, tmp_path / "out", "--keep-order", "--count", 3)
    folder = Folder(str(root), size=32, batch_size=3, workers=0)
    shards = WebDataset(str(tmp_path / "out" / "shard-*.tar"), size=32, batch_size=3, workers=0)
    assert shards.classes == folder.classes
    for one, other in zip(folder.export_dataloader(), shards.export_dataloader(), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_same_folder_gives_the_same_bytes(tree: Tree, tmp_path: Path) -> None:
    root = tree()
    for name, workers in (("one", 1), ("two", 2)):
        run([str(root), str(tmp_path / name), "--count", "3", "--workers", str(workers)])
    one, two = shards_in(tmp_path / "one"), shards_in(tmp_path / "two")
    assert [path.name for path in one] == [f"shard-{index:06d}.tar" for index in range(3)]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_shuffled_unless_asked_otherwise(tree: Tree, tmp_path: Path) -> None:
    root = tree(classes=2, each=8)

    def labels(*options: object) -> list[bytes]:
        pack(root, tmp_path / "out", "--overwrite", *options)
        return [content for name, content in members(shards_in(tmp_path / "out")).items() if name.endswith(".cls")]

    kept, first, second = labels("--keep-order"), labels(), labels("--seed", 1)
    assert kept == [b"0"] * 8 + [b"1"] * 8
    assert sorted(first) == sorted(second) == kept
    assert len({tuple(kept), tuple(first), tuple(second)}) == 3


def test_shards_keep_their_limits(tree: Tree, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 700, 3), dtype=np.uint8)
    root = tree(classes=0, each=4)
    for index in range(4):
        Image.fromarray(noise).save(root / f"noise {index}.bmp")  # 630 kB each
    pack(root, tmp_path / "out" / "train-%04d.tar", "--size-limit", 1)
    shards = shards_in(tmp_path / "out")
    assert [shard.name for shard in shards] == [f"train-{index:04d}.tar" for index in range(len(shards))]
    assert len(shards) == 4
    assert all(shard.stat().st_size < 1_100_000 for shard in shards)
    assert not (tmp_path / "out" / "classes.json").exists()


def test_corrupt_pictures_are_left_out_and_reported(tree: Tree, tmp_path: Path, capsys) -> None:
    root = tree()
    (root / "class 0" / "käse.01.jpg").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"class 0/käse\.01\.jpg: no picture"):
        pack(root, tmp_path / "out")
    assert "packed 7 pictures of 2 classes" in (out := capsys.readouterr().out)
    assert out.endswith("; skipped 1 corrupt\n")
    assert len(members(shards_in(tmp_path / "out"))) == 14


@pytest.mark.filterwarnings("ignore:skipped")
def test_an_error_leaves_nothing_behind(tree: Tree, tmp_path: Path) -> None:
    root = tree(each=8)
    for path in sorted(root.rglob("*.*"))[8:]:
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"past --max-corrupt 0\.01"):
        pack(root, tmp_path / "out", "--keep-order", "--count", 2)
    assert not (tmp_path / "out").exists()
    pack(root, tmp_path / "out", "--max-corrupt", 0.6)
    assert len(shards_in(tmp_path / "out")) == 1


@pytest.mark.filterwarnings("ignore:skipped")
def test_nothing_but_corrupt_pictures(tree: Tree, tmp_path: Path) -> None:
    root = tree()
    for path in root.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="nothing to pack"):
        pack(root, tmp_path / "out", "--max-corrupt", 1)


def test_earlier_shards_are_not_mixed_in(tree: Tree, tmp_path: Path) -> None:
    root = tree()
    pack(root, tmp_path / "out", "--count", 2)
    other = tmp_path / "out" / "val-000000.tar"
    other.write_bytes(b"of another set")
    with pytest.raises(UserError, match=r"shard-000000\.tar is already there: .*--overwrite"):
        pack(root, tmp_path / "out")
    assert len(shards_in(tmp_path / "out")) == 5
    pack(root, tmp_path / "out", "--overwrite")
    assert [path.name for path in shards_in(tmp_path / "out")] == ["shard-000000.tar", "val-000000.tar"]


def test_shards_beside_others_share_their_classes(tree: Tree, tmp_path: Path) -> None:
    pack(tree(classes=3), tmp_path / "out" / "train-%06d.tar")
    pack(tree(classes=1, first_class=2, name="val"), tmp_path / "out" / "val-%06d.tar")
    labels = {v for k, v in members([tmp_path / "out" / "val-000000.tar"]).items() if k.endswith(".cls")}
    assert labels == {b"2"}
    with pytest.raises(UserError, match=r"classes\.json does not have the classes class 3"):
        pack(tree(classes=1, first_class=3, name="test"), tmp_path / "out" / "test-%06d.tar")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "out"], r"FOLDER '.*missing' does not exist"),
        (["pictures", "out.tar"], r"SHARDS '.*out\.tar' must be a folder, or a pattern"),
        (["pictures", "out-%d-%d.tar"], "SHARDS .* has one number"),
        (["pictures", "out-%s.tar"], "SHARDS .* has one number"),
        (["pictures", "out", "--count", "0"], "--count must be at least 1, not 0"),
        (["pictures", "out", "--size-limit", "0"], "--size-limit must be at least 1, not 0"),
        (["pictures", "out", "--max-corrupt", "2"], "--max-corrupt must lie between 0 and 1"),
    ],
)
def test_bad_input(arguments: list[str], message: str, tree: Tree, tmp_path: Path) -> None:
    tree()
    folder, shards, *options = arguments
    with pytest.raises(UserError, match=message):
        run([str(tmp_path / folder), str(tmp_path / shards), *options])
    assert not (tmp_path / "out").exists()


def test_packed_pictures_open(tree: Tree, tmp_path: Path) -> None:
    pack(tree(classes=0), tmp_path / "out")
    for content in members(shards_in(tmp_path / "out")).values():
        assert Image.open(io.BytesIO(content)).size == (64, 48)


def _killed(path: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_ends_the_packing(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vltok.verbs.pack._what_is_wrong", _killed)
    with pytest.raises(UserError, match="was killed, as happens where memory runs out: lower --workers"):
        run([str(tree()), str(tmp_path / "out"), "--workers=2"])
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("step", range(3))
def test_killed_while_shards_take_their_places_nothing_is_lost(
    step: int, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tree(name="old", each=6), tmp_path / "out", "--count", 2)
    new = [tree(name="new", each=2), tmp_path / "out", "--count", 2, "--overwrite"]
    pack(new[0], tmp_path / "undisturbed", "--count", 2)
    moves: list[str] = []
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.parent == tmp_path / "out" and target.name != ".packed":
            if len(moves) == step:
                raise KeyboardInterrupt  # stands for a kill
            moves.append(target.name)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(*new)
    assert (tmp_path / "out" / ".packed").is_dir()
    pack(*new)
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == {path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()}


def test_a_hostile_folder_of_packed_shards_moves_nothing_out(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(b"mine")
    (tmp_path / "out" / ".packed").mkdir(parents=True)
    for plan in ({"names": ["../evil.tar"], "earlier": []}, {"names": [], "earlier": ["../mine.tar"]}, {}):
        (tmp_path / "out" / ".packed" / "plan.json").write_text(json.dumps({"given": {}, **plan}))
        with pytest.raises(UserError, match="is none of vltok pack's"):
            pack(tree(), tmp_path / "out")
    assert (tmp_path / "mine.tar").read_bytes() == b"mine"
