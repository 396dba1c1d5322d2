"""The pictures that a verb is given one by one, and the names of their results."""

import os
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltok.errors import UserError, one_line
from vltok.files import is_device
from vltok.verbs.given_pictures import find_pictures, name_outputs

ENDINGS = (".png", ".coding.png")


def test_names_never_meet(tmp_path: Path) -> None:
    names = ("one/cat.jpg", "two/cat.png", "two/CAT.jpg", "cat-2.jpg", "cat.coding.jpg", "dog.png")
    pictures = [tmp_path / name for name in names]
    assert name_outputs(pictures, tmp_path / "out", ENDINGS) == [
        "cat",
        "cat-2",
        "CAT-3",
        "cat-2-2",
        "cat.coding-2",
        "dog",
    ]


def test_finding_pictures(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("b.jpg", "a.PNG", "sub/c.webp", "out/a.png", "[1].png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*given: str) -> list[str]:
        return [
            str(path.relative_to(tmp_path)) for path in find_pictures([str(tmp_path / text) for text in given], out)
        ]

    assert names(".") == ["[1].png", "a.PNG", "b.jpg", "sub/c.webp"], "not the results of an earlier run"
    assert names("**/*.webp", "b.jpg", "*.jpg") == ["sub/c.webp", "b.jpg"], "each once, in the order given"
    assert names("[1].png") == ["[1].png"], "a file's own name is no pattern"
    assert names("notes.txt") == ["notes.txt"], "what is named is tried"
    with pytest.raises(UserError, match=r"this folder holds no picture besides what --out '.*' holds, which counts as"):
        names("out")


def test_what_a_pattern_leaves_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "b.CR2", "c.cr2", "d.mov", "e.txt", ".f.cr2"):
        (tmp_path / name).touch()
    assert [path.name for path in find_pictures([str(tmp_path / "*")], None)] == ["a.jpg"]
    assert "2 .cr2 files left out: convert them to JPEG, PNG or TIFF; 1 .mov file left out: videos" in caplog.text


@given(st.lists(st.binary(min_size=1, max_size=6), max_size=8))
def test_results_never_meet_whatever_the_names_and_the_file_system(names: list[bytes]) -> None:
    paths = [Path(os.fsdecode(name.replace(b"/", b"").replace(b"\0", b"") + b".png")) for name in names]
    results = name_outputs(paths, Path("somewhere"), ENDINGS)
    assert len({normalize("NFC", name).casefold() for name in results}) == len(names)
    for name in results:
        assert not is_device(name) and len(name.encode()) < 200 and one_line(name)


def test_many_pictures_of_one_name_are_named_at_once() -> None:
    names = name_outputs(
        [Path(f"{number}/image.png") for number in range(2000)], Path("somewhere"), (".png", ".coding.png")
    )
    assert len(set(names)) == 2000 and names[1999] == "image-2000"
