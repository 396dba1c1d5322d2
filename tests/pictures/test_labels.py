"""What a label is, and what classes are called."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltok.errors import UserError
from vltok.pictures.labels import class_names, label_of
from vltok.pictures.samples import TarSample


def label(cls: bytes | None = None, record: object = None, classes: list[str] | None = None) -> int | None:
    encoded = None if record is None else json.dumps(record).encode()
    return label_of(TarSample("a.tar", "0", "0.jpg", bytes, cls, encoded), classes)


@pytest.mark.parametrize(
    ("cls", "record", "found"),
    [
        (b" 7\n", None, 7),
        (b"\xef\xbb\xbf7", None, 7),
        (None, {"label": 7}, 7),
        (None, {"label": "7"}, 7),
        (None, {"label": 7.0}, 7),
        (b"7", {"label": 7}, 7),
        (b"7", {"caption": "a cat"}, 7),
        (None, {"label": None}, None),
        (None, [7], None),
        (None, None, None),
    ],
)
def test_numbers(cls: bytes | None, record: object, found: int | None) -> None:
    assert label(cls, record) == found


@given(st.integers(0, 2**60))
def test_every_form_of_a_number_is_the_same_label(number: int) -> None:
    forms = [(str(number).encode(), None), (None, {"label": number}), (None, {"label": str(number)})]
    assert {label(cls, record) for cls, record in forms} == {number}


def test_names_are_labels_where_they_are_listed() -> None:
    classes = ["ant", "été, cat", "3", "0"]
    assert [label(None, {"label": name}, classes) for name in classes[:2]] == [0, 1]
    assert label("été, cat".encode(), None, classes) == 1
    assert label(b"3", None, classes) == 3  # a number is a number
    with pytest.raises(UserError, match=r"sample 0 of shard 'a\.tar' .*one of the names in classes\.json, not 'dog'"):
        label(None, {"label": "dog"}, classes)
    with pytest.raises(UserError, match=r"has label 'crane', which classes\.json lists twice: give its number"):
        label(b"crane", None, ["crane", "ant", "crane"])
    assert label(b"2", None, ["crane", "ant", "crane"]) == 2


@pytest.mark.parametrize(
    ("cls", "record", "message"),
    [
        (None, {"label": "cat"}, "must be a whole number, not 'cat'; a file classes.json beside the shards"),
        (b"", None, "must be a whole number, not ''"),
        (b"\xff", None, "must be a whole number"),
        (None, {"label": [1]}, r"must be a whole number, not \[1\]"),
        (None, {"label": float("nan")}, "must be a whole number, not nan"),
        (b"1", {"label": 2}, "two labels: 1 in '.cls', and 2 in '.json'"),
        (str(2**64).encode(), None, "more than 64 bits"),
        (b"-1", None, "label -1: number the classes from 0 on"),
        (None, {"label": "-1"}, "label -1: number the classes from 0 on"),
    ],
)
def test_what_is_no_label_is_refused_by_name(cls: bytes | None, record: object, message: str) -> None:
    with pytest.raises(UserError, match=rf"^sample 0 of shard 'a\.tar' has .*{message}"):
        label(cls, record)


def test_labels_beyond_the_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"label 2, but classes\.json beside the shards lists 2 classes"):
        label(b"2", None, ["a", "b"])


def test_classes_of_several_folders_must_agree(tmp_path: Path) -> None:
    shards = []
    for name, classes in (("a", ["x", "y"]), ("b", None), ("c", ["x", "y"])):
        (tmp_path / name).mkdir()
        shards.append(str(tmp_path / name / "0.tar"))
        if classes is not None:
            (tmp_path / name / "classes.json").write_text(json.dumps(classes))
    assert class_names(shards, "data.shards") == ["x", "y"]
    (tmp_path / "c" / "classes.json").write_text('["y", "x"]')
    with pytest.raises(UserError, match=r"data\.shards: .* number 0 is 'y' here and 'x' there"):
        class_names(shards, "data.shards")


@given(st.integers(max_value=-1), st.none() | st.just(["ant", "bee"]))
def test_no_label_is_below_0(number: int, classes: list[str] | None) -> None:
    with pytest.raises(UserError, match="number the classes from 0 on"):
        label(str(number).encode(), None, classes)
