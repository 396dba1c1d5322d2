"""`vltok compress` and `vltok decompress` as a user runs them."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from vltok.cli.main import main
from vltok.compression.tables import CodeTables
from vltok.testing.outcomes import random_codes

from .exports import write_bundle


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    spec = write_bundle(Path("bundle")).spec
    CodeTables.measure([random_codes(spec, 20)], spec).save("bundle")
    Image.fromarray(skimage.data.coffee()[100:161, 200:283]).save("coffee.png")
    Image.fromarray(skimage.data.coffee()[100:180, 300:340]).save("cup.jpg")
    return Path("bundle")


def test_there_and_back(bundle: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compress", "*.png", "*.jpg", "--tokenizer", "bundle", "--out", "files", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    size = Path("files/coffee.vlt").stat().st_size
    lines = said.out.splitlines()
    assert lines[0].startswith(f"coffee: {size} bytes, {8 * size / (61 * 83):.3f} bits per pixel, ")
    assert lines[-1].endswith("; written to files") and " bytes in 2 files, " in lines[-1] and not said.err
    assert (
        main(["decompress", "files", "--tokenizer", "bundle", "--out", "back", "--progressive", "--device", "cpu"]) == 0
    )
    assert capsys.readouterr().out.splitlines() == ["coffee.png", "cup.png", "2 pictures written to back"]
    assert main(["reconstruct", "coffee.png", "--tokenizer", "bundle", "--out", "whole", "--device", "cpu"]) == 0
    assert np.array_equal(np.asarray(Image.open("back/coffee.png")), np.asarray(Image.open("whole/coffee.png")))
    assert Image.open("back/coffee.1.png").size == (83, 61)


def test_what_fails_is_named_and_the_others_are_done(bundle: Path, capsys: pytest.CaptureFixture) -> None:
    assert (
        main(["compress", "coffee.png", "cup.jpg", "--tokenizer", "bundle", "--out", "files", "--device", "cpu"]) == 0
    )
    data = Path("files/coffee.vlt").read_bytes()
    Path("files/cut.vlt").write_bytes(data[:-1])
    Path("files/changed.vlt").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    Path("files/other.vlt").write_bytes(b"GIF89a")
    capsys.readouterr()
    assert main(["decompress", "files/*.vlt", "--tokenizer", "bundle", "--out", "back", "--device", "cpu"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert said[0].endswith("skipped 'files/changed.vlt': it is damaged: its checksum does not fit what it holds")
    assert (
        "skipped 'files/cut.vlt': it is cut" in said[1] and "skipped 'files/other.vlt': it is no .vlt file" in said[2]
    )
    assert said[3].startswith("vltok: error: 3 of 5 files could not be decompressed: 'files/changed.vlt', ")
    assert sorted(path.name for path in Path("back").iterdir()) == ["coffee.png", "cup.png"]


def test_a_prefix_is_shown_where_that_is_asked_for(bundle: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compress", "coffee.png", "--tokenizer", "bundle", "--out", "files", "--device", "cpu"]) == 0
    path = Path("files/coffee.vlt")
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    assert (
        main(
            [
                "decompress",
                "files/coffee.vlt",
                "--tokenizer",
                "bundle",
                "--out",
                "back",
                "--progressive",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert "which hold 1 of 2 granularities" in line
    assert said.out.splitlines()[0] == "coffee.png of 1 of 2 granularities"
    assert [each.name for each in Path("back").iterdir()] == ["coffee.png"]
