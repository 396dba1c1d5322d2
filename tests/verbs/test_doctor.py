"""`vltok.doctor`: what a training would lose of folders and shards, by reason."""

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import vltok
from vltok.cli.main import main
from vltok.errors import UserError


def picture(width: int = 12, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, 8)).save(file, "PNG")
    return file.getvalue()


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sound_folder(workers: int, tmp_path: Path) -> None:
    files = {"cat/a.png": picture(9), "cat/._a.png": b"", "dog/b.png": picture(20, "L"), "dog/c.png": picture()}
    told: list[tuple[int, int]] = []
    root = folder(tmp_path, files)
    found = vltok.doctor(root, workers=workers, progress=lambda done, total: told.append((done, total)))
    assert found.sound and not found.notes
    assert (found.pictures, found.shards, found.unreadable) == (3, None, {})
    assert found.modes == {"RGB": 2, "L": 1}
    assert found.sizes == {"smallest": (9, 8), "median": (12, 8), "largest": (20, 8)}
    assert found.labels == {"cat": 1, "dog": 2}
    assert told == [(done, 3) for done in range(4)]


LOST_OF_FOLDERS: dict[str, tuple[dict[str, bytes], str]] = {
    "cut": ({"b.png": picture()[:-30]}, r"1 of 2 pictures cannot be read \(b\.png: "),
    "empty": ({"b.png": b""}, r"b\.png: the file is empty"),
    "raw": ({"b.cr2": b"x"}, r"1 \.cr2 file left out: convert"),
    "no ending": ({"b": picture()}, "names without an ending"),
    "splits": (
        {"train/x/b.png": picture(), "val/x/c.png": picture()},
        "'train' and 'val' count as classes, and the pictures of both as one set: give data.root",
    ),
    "stray": ({"cat/b.png": picture()}, r"1 picture lies outside of them \(a\.png\)"),
}


@pytest.mark.parametrize("kind", LOST_OF_FOLDERS)
def test_what_a_folder_would_lose(kind: str, tmp_path: Path) -> None:
    files, reason = LOST_OF_FOLDERS[kind]
    found = vltok.doctor(folder(tmp_path, {"a.png": picture(), **files}), workers=0)
    assert not found.sound
    assert re.search(reason, "; ".join(found.losses))


@pytest.mark.parametrize("workers", [0, 2])
def test_sound_shards(workers: int, tmp_path: Path) -> None:
    for number in range(2):
        shard(
            tmp_path / f"{number}.tar",
            {"a.png": picture(), "a.cls": b"1", ".a.png": b"", "b.png": picture(), "b.cls": b"0"},
        )
    (tmp_path / "classes.json").write_text('["ant", "bee"]')
    for given in (tmp_path, tmp_path / "{0,1}.tar", tmp_path / "*.tar"):
        found = vltok.doctor(given, workers=workers)
        assert found.sound
        assert (found.pictures, found.shards, found.duplicate_keys) == (4, 2, 2)
        assert found.labels == {"ant": 2, "bee": 2}
        assert "2 keys stand in several shards (a)" in found.notes[0]


LOST_OF_SHARDS: dict[str, tuple[dict[str, bytes], str]] = {
    "numbered": ({"i.0.png": picture(), "i.1.png": picture()}, r"'i\.1\.png' of shard .* is a second picture"),
    "numbered, all counted": ({f"i.{n}.png": picture() for n in range(4)}, "several pictures or labels: 3 times"),
    "apart": ({"a.png": picture(), "b.png": picture(), "a.cls": b"1"}, "do not stand together: 1 time,"),
    "broken": ({"a.png": b"x"}, "1 of 1 pictures cannot be read"),
    "half labelled": ({"a.png": picture(), "a.cls": b"1", "b.png": picture()}, "1 of 2 pictures have no label"),
    "wrong label": ({"a.png": picture(), "a.cls": b"cat"}, "cat"),
    "raw": ({"a.cr2": b"x", "b.png": picture()}, r"'a\.cr2' .* left out \(convert them"),
    "nothing": ({"a.txt": b"x"}, "there is no picture"),
}


@pytest.mark.parametrize("kind", LOST_OF_SHARDS)
def test_what_shards_would_lose(kind: str, tmp_path: Path) -> None:
    members, reason = LOST_OF_SHARDS[kind]
    found = vltok.doctor(shard(tmp_path / "a.tar", members), workers=0)
    assert re.search(reason, "; ".join(found.losses))


def test_texts_about_pictures_are_no_loss(tmp_path: Path) -> None:
    found = vltok.doctor(shard(tmp_path / "a.tar", {"README": b"x", "LICENSE": b"x", "a.png": picture()}), workers=0)
    assert found.sound and "belongs to no picture, and is left out" in found.notes[0]
    root = folder(tmp_path / "pictures", {"README": b"x", "COPYING": b"x", "a.png": picture()})
    assert vltok.doctor(root, workers=0).sound


def test_a_cut_shard_costs_no_look_at_the_others(tmp_path: Path) -> None:
    whole = shard(tmp_path / "0.tar", {"a.png": picture(), "b.png": picture()}).read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[: len(whole) // 8])
    found = vltok.doctor(tmp_path, workers=0)
    assert found.pictures == 2
    assert "1.tar' cannot be read" in found.losses[0]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_a_folder_of_compressed_shards(name: str, tmp_path: Path) -> None:
    whole = shard(tmp_path / "a.tar", {"a.png": picture(), "b.png": picture()})
    (tmp_path / name).write_bytes(gzip.compress(whole.read_bytes()))
    whole.unlink()
    assert vltok.doctor(tmp_path, workers=0).pictures == 2


def test_a_folder_of_plain_and_compressed_shards_is_read_whole(tmp_path: Path) -> None:
    plain = shard(tmp_path / "a.tar", {"a.png": picture(), "b.png": picture()})
    (tmp_path / "a.tar.idx").write_text("an index is no shard")
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    found = vltok.doctor(tmp_path, workers=0)
    assert (found.pictures, found.losses) == (4, ())


def test_a_picture_alone_is_no_shard(tmp_path: Path) -> None:
    folder(tmp_path, {"a.png": picture()})
    with pytest.raises(UserError, match=r"a\.png' is a picture: give the folder"):
        vltok.doctor(tmp_path / "a.png")


def test_nothing_to_look_at(tmp_path: Path) -> None:
    for given, reason in ((tmp_path, "neither pictures nor shards"), (tmp_path / "no.tar", "does not exist")):
        with pytest.raises(UserError, match=reason):
            vltok.doctor(given)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], tree: Callable[..., Path]) -> None:
    root = tree()
    assert main(["doctor", str(root), "--workers", "0"]) == 0
    assert "12 pictures can be used" in capsys.readouterr().out
    (root / "class0" / "bad.jpg").write_bytes(b"x")
    assert main(["doctor", str(root), "--workers", "0", "--json"]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["sound"], found["pictures"], list(found["unreadable"])) == (False, 12, ["class0/bad.jpg"])
    assert "vltok: error: a training on" in printed.err and "1 of 13 pictures cannot be read" in printed.err


MORE_OF_FOLDERS: dict[str, tuple[dict[str, bytes], str]] = {
    "unfinished": ({"b.jpg.tmp": b"x"}, r"1 \.tmp file left out: copies that were not finished"),
    "a shard beside pictures": ({"b.tar": b"x"}, r"1 \.tar file left out: shards are read by themselves"),
    "archive": ({"b.zip": b"x"}, r"1 \.zip file left out: unpack"),
    "video": ({"b.MOV": b"x"}, r"1 \.mov file left out: videos"),
    "labels beside pictures": ({"a.cls": b"1"}, r"1 \.cls file left out: labels beside pictures are not read"),
}


@pytest.mark.parametrize("kind", MORE_OF_FOLDERS)
def test_what_lies_beside_pictures_has_its_remedy(kind: str, tmp_path: Path) -> None:
    files, reason = MORE_OF_FOLDERS[kind]
    found = vltok.doctor(folder(tmp_path, {"a.png": picture(), **files}), workers=0)
    assert re.search(reason, "; ".join(found.losses))


def test_a_class_without_a_picture(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat/a.png": picture(), "dog/b.png": picture()})
    assert vltok.doctor(root, workers=0).sound
    (root / "eel").mkdir()
    assert vltok.doctor(root, workers=0).losses == ("no picture lies in 'eel': no class is made of it",)
    (root / "a.png").write_bytes(picture())  # no folder is a class then
    assert "eel" not in "; ".join(vltok.doctor(root, workers=0).losses)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (
            {"cat/a.png": picture(), "cat/b.png": picture(), "dog/c.png": picture(), "dog/d.png": picture()},
            "no classes",
        ),
        ({"a.png": picture(), "a.json": b'{"class": 1}'}, "call the key 'label'"),
        ({"a.png": picture(), "a.label": b"1"}, r"call it 'a\.cls'"),
        ({f"{n}.{end}": picture() if end == "png" else b"cat" for n in range(7) for end in ("png", "cls")}, "7 labels"),
        ({"a.png": picture(), "a.cls": b"-1"}, "1 label cannot be used, first: .*label -1"),
    ],
)
def test_labels_that_shards_would_lose(members: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    found = vltok.doctor(shard(tmp_path / "a.tar", members), workers=0)
    assert re.search(reason, "; ".join(found.losses))


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere' does not exist: give a folder of pictures, or shards"):
        vltok.doctor(tmp_path / "nowhere")


def test_colours_that_are_not_followed_are_counted(tmp_path: Path) -> None:
    plain = picture()
    chunk = b"cICP" + bytes([9, 16, 0, 1])
    hdr = plain[:33] + (4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + plain[33:]
    found = vltok.doctor(folder(tmp_path, {"a.png": plain, "b.png": hdr}), workers=0)
    assert found.modes == {"RGB": 1, "RGB (curve PQ)": 1}
    assert found.notes == ("1 picture has curve PQ, which is read as sRGB",) and found.sound
