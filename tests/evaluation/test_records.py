"""`metrics.json`: what is written is read back, and what somebody else made of it is refused in a line."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from vltok.cli.main import main
from vltok.errors import UserError
from vltok.evaluation.records import Record
from vltok.evaluation.values import Value

RECORD = Record(
    "tokenizer",
    {"path": "a", "fingerprint": "0" * 64},
    {"psnr": Value(20.0, 19.0, 21.0), "frechet_distance/timm:a.b_c": Value(float("nan"))},
    {"length": {"histogram": {"7": 2}}},
    {"data": {"size": 16}, "precision": "float32"},
    {"device": "cpu"},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    for place in (tmp_path, tmp_path / "metrics.json"):
        read = Record.read(place)
        assert dataclasses.replace(read, values=RECORD.values) == RECORD and read.name == "a"
        assert read.values["psnr"] == RECORD.values["psnr"]
        assert read.values["frechet_distance/timm:a.b_c"].shown(".4g") == "nan"
    with pytest.raises(UserError, match="cannot be read"):
        Record.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("kind",), "program"),
        (("kind",), ["tokenizer"]),
        (("subject",), ["a"]),
        (("subject",), {}),
        (("subject", "path"), {"a": 1}),
        (("codes",), None),
        (("codes", "length"), 3),
        (("codes", "length", "histogram"), {"seven": 2}),
        (("codes", "length", "histogram"), {"7": "two"}),
        (("protocol",), 3),
        (("protocol",), {"data": {}}),
        (("protocol", "data"), "val"),
        (("environment",), {}),
        (("values",), [1]),
        (("values", "psnr"), 3),
        (("values", "psnr", "value"), "much"),
        (("values", "psnr", "low"), {}),
        (("values", "fid/../../../outside"), {"value": 1.0, "low": [1]}),
        (("values", "psnr\n|"), {"value": 1.0}),
        (("values", "fid/" + "a" * 300), {"value": 1.0}),
        (("values", "fid/\0"), {"value": 1.0}),
    ],
    ids=str,
)
def test_a_record_that_is_none_is_one_line(
    keys: tuple[str, ...], value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RECORD.write(tmp_path / "run")
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text())
    place = tree
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = copy.deepcopy(value)
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="is not what vltok evaluate writes"):
        Record.read(tmp_path / "run")
    assert main(["compare", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "unexpected" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("text", ["", "[1]", "3", "[" * 100_000, "{", "\xff"])
def test_a_file_of_something_else(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="is not what vltok evaluate writes"):
        Record.read(tmp_path)


def test_a_name_of_a_figure_leads_nowhere(tmp_path: Path) -> None:
    values = {"fid/../../x": Value(1.0), "length": Value(3.0)}
    Record("tokenizer", {"path": "../<b>"}, values, {}, dict(RECORD.protocol, features=None), {"device": "a"}).write(
        tmp_path / "run"
    )
    assert main(["compare", str(tmp_path / "run"), "--out", str(tmp_path / "out" / "in")]) == 0
    assert {path.name for path in (tmp_path / "out" / "in").iterdir()} >= {"table.md", "table.csv"}
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"in"}
    assert "\\<b\\>" in (tmp_path / "out" / "in" / "table.md").read_text()


def test_a_figure_that_nothing_explains_fails_the_tests(tmp_path: Path) -> None:
    protocol = {"data": {}, "precision": "float32"}
    with pytest.raises(AssertionError, match=r"^new_figure: write an entry in vltok/measures/meanings\.py"):
        Record("tokenizer", {"path": "a"}, {"psnr": Value(1.0), "new_figure": Value(1.0)}, {}, protocol).write(tmp_path)
