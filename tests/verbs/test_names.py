"""Pictures of any name go through every verb, and what is written of them has a name of its own."""

import csv
import os
from pathlib import Path

import pytest
from PIL import Image

import vltok
from tests.cli.exports import write_bundle
from vltok.pictures.folder import Folder
from vltok.pictures.shards import WebDataset
from vltok.verbs.pack import pack

NAMES = [
    *(b"caf\xe9", "cafe\u0301".encode(), "水".encode() * 83, b"x" * 251, b"a\nb\x1b[1m", b"con", b"[1]{2,3}*"),
    *(b"$HOME", b"~", b"a.b.c", b"-x", "\u202egnp".encode(), b"A", b"a", b"a,b;c"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture of each name, in two classes."""
    folder = tmp_path_factory.mktemp("names")
    for number, name in enumerate(NAMES):
        place = folder / "pictures" / os.fsdecode([b"caf\xe9", "e\u0301, f".encode()][number % 2])
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (9 * number, 99, 255 - 9 * number)).save(place / "a.png")
        (place / "a.png").rename(place / os.fsdecode(name + b".png"))
    write_bundle(folder / "tokenizer")
    return folder


def test_tokenize_and_reconstruct(root: Path, tmp_path: Path) -> None:
    pictures = Folder(str(root / "pictures"), size=16, batch_size=4, workers=0)
    manifest = vltok.tokenize(root / "tokenizer", pictures, tmp_path / "codes", device="cpu").manifest
    assert manifest.statistics["samples"] == len(NAMES)
    found = vltok.reconstruct(root / "tokenizer", root / "pictures", tmp_path / "out", device="cpu")
    assert not found.failed
    assert len(list((tmp_path / "out").glob("*.coding.png"))) == len(NAMES)


def test_pack(root: Path, tmp_path: Path) -> None:
    packed = pack(root / "pictures", tmp_path / "shards", workers=0)
    assert packed.pictures == len(NAMES) and packed.classes == 2
    data = WebDataset(str(tmp_path / "shards" / "*.tar"), size=16, batch_size=4, workers=0)
    assert data.classes == Folder(str(root / "pictures"), workers=0).classes
    assert sum(len(batch) for batch in data.export_dataloader()) == len(NAMES)


def test_evaluate(root: Path, tmp_path: Path) -> None:
    pictures = Folder(str(root / "pictures"), size=16, batch_size=4, workers=0)
    vltok.evaluate(root / "tokenizer", pictures, split="all", device="cpu", out=tmp_path)
    with (tmp_path / "images.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(NAMES)
