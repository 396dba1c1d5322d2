"""Paths as users write them."""

import os
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vltok.errors import UserError
from vltok.files import written_whole
from vltok.paths import find_files, new_path, read_path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, beside a home with a folder `pictures`."""
    (tmp_path / "home" / "pictures").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PICTURES", str(tmp_path / "home" / "pictures"))
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("given", ["~/pictures", "$PICTURES", "${PICTURES}", "./$PICTURES", "$HOME/pictures/"])
def test_home_and_variables(here: Path, given: str) -> None:
    assert read_path(given) == new_path("--out", given) == here.parent / "home" / "pictures"
    assert new_path("--out", f"{given}/new run") == here.parent / "home" / "pictures" / "new run"


@pytest.mark.parametrize("given", ["~/pictures", "~", "$PICTURES", "a$HOME", "[ab]", "{a,b}", "a*", "x{1..3}"])
def test_what_exists_is_taken_literally(here: Path, given: str) -> None:
    (here / given).mkdir(parents=True)
    (here / given / "new").touch()
    for path in (given, f"{given}/new", f"{given}/none"):
        assert read_path(path) == new_path("--out", path) == Path(path)
    assert find_files("--data", f"{given}/n*") == [f"{given}/new"]
    assert find_files("--data", f"{given}/n{{ew,ew}}") == [f"{given}/new"] * 2


def test_an_empty_path_is_not_the_folder_where_one_stands(here: Path) -> None:
    for read in (read_path, partial(new_path, "--out"), partial(find_files, "--data")):
        with pytest.raises(UserError, match=r"a path is empty: write '\.' for the folder where you are"):
            read("")


def test_patterns(here: Path) -> None:
    for name in ("a-0.tar", "a-1.tar", "b[1].tar", "c.tar"):
        (here / name).touch()
    assert find_files("x", "a-{0..1}.tar") == ["a-0.tar", "a-1.tar"]
    assert find_files("x", "{c,a-*}.tar") == ["c.tar", "a-0.tar", "a-1.tar"]
    assert find_files("x", "b[1].tar") == ["b[1].tar"]
    assert find_files("x", "[ac]*.tar") == ["a-0.tar", "a-1.tar", "c.tar"]
    assert find_files("x", "$HOME/../here/c.*") == [f"{here.parent}/home/../here/c.tar"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a-{0..1}.tar", r"^x 'a-\{0\.\.1\}\.tar': 'a-0\.tar' does not exist$"),
        ("~/none", r"^x '~/none': '/.*/home/none' does not exist$"),
        ("none.tar", r"^x 'none\.tar' does not exist$"),
        ("none*.tar", r"^x 'none\*\.tar' matches no file$"),
        ("a-{0..1.tar", r"^x 'a-\{0\.\.1\.tar': .*write braces such as"),
    ],
)
def test_one_line_says_what_was_looked_for(here: Path, given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_files("x", given)


@pytest.mark.parametrize(
    ("given", "message"),
    [("$UNSET/x", "the variable UNSET is not set"), ("a/${UNSET}", "UNSET"), ("~nobody-here/x", "no such user")],
)
def test_what_is_not_known_is_no_name_of_a_new_folder(here: Path, given: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^--out '.*': .*{message}"):
        new_path("--out", given)
    with pytest.raises(UserError, match="does not exist"):
        find_files("x", given)


NAME = st.binary(min_size=1, max_size=60).filter(
    lambda name: not {b"\0", b"/"} & {name[i : i + 1] for i in range(len(name))}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(NAME.filter(lambda name: name not in (b".", b"..")))
def test_a_file_of_any_name_is_found_by_it(here: Path, name: bytes) -> None:
    text = os.fsdecode(name)
    Path(text).touch()
    try:
        assert find_files("x", text) == [text] and read_path(text) == Path(text)
    finally:
        Path(text).unlink()


@pytest.mark.parametrize("name", ["a" * 255, "水" * 83 + ".png", "a." + "x" * 253])
def test_names_as_long_as_names_may_be(here: Path, name: str) -> None:
    with written_whole(here / name) as path:
        path.write_text("whole")
    assert [path.name for path in here.iterdir()] == [name]
