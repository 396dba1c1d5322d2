from pathlib import Path

import pytest

from vltok.verbs.detokenize import picture_name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("cats/1.jpg", "cats/1"),
        ("cats/1.small.jpg", "cats/1.small"),
        ("000012", "000012"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("..\\up.png", "up"),
        ("a/./b.png", "a/b"),
        ("..", "000000007"),
        ("", "000000007"),
        ("a/CON/nul.jpg", "a/_CON/_nul"),
        ("a\0b/c\nd.png", "a_b/c_d"),
        ("C:\\Users\\x.png", "C_/Users/x"),
        ("a.png/b.jpg", "a_png/b"),
        (".ssh/.config", "ssh/config"),
        ("x/" * 40 + "y", "x/" * 16 + "y"),
    ],
)
def test_names_stay_within_their_folder(key: str, name: str) -> None:
    assert picture_name(key, 7, set()) == name


def test_a_long_name_is_one_that_systems_take(tmp_path: Path) -> None:
    path = tmp_path / f"{picture_name('é' * 300 + '/' + 'b' * 300, 7, set())}.png"
    path.parent.mkdir()
    path.write_bytes(b"")


def test_no_picture_takes_the_name_of_another() -> None:
    taken: set[str] = set()
    names = [picture_name(key, index, taken) for index, key in enumerate(["a/1.jpg", "a/1.png", "A/1.jpg", "a/1.jpg"])]
    assert names == ["a/1", "a/1-000000001", "A/1-000000002", "a/1-000000003"]
