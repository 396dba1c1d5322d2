import pytest

from vltok.cli.main import main
from vltok.cli.options import with_bundle_path, with_default_data


def test_a_bundle_beside_us_is_no_registered_name() -> None:
    assert with_bundle_path(["--tokenizer", "b", "--out", "b"]) == ["--tokenizer", "./b", "--out", "b"]
    assert with_bundle_path(["--tokenizer=b"]) == ["--tokenizer=./b"]
    assert with_bundle_path(["--tokenizer", "user/b"]) == ["--tokenizer", "user/b"]


def test_photographs_are_the_default_and_leave_no_trace_in_other_data() -> None:
    assert with_default_data(["--data.size=32"]) == ["--data=photos", "--data.size=32"]
    for named in (["--data", "folder"], ["--data=folder"], ["--config", "a.yaml"]):
        assert with_default_data(named) == named


@pytest.mark.parametrize("named", [["--data", "folder"], ["--data=folder"]])
def test_the_source_comes_before_its_options_wherever_it_stands(named: list[str]) -> None:
    size, out = ["--data.size", "32"], ["--out", "codes"]
    assert with_default_data([*out, *size, *named, *out]) == [*out, *named, *size, *out]


def test_an_option_of_other_data_alone_asks_for_its_name(capsys: pytest.CaptureFixture) -> None:
    assert main(["tokenize", "--tokenizer", "a/b", "--out", "codes", "--data.root", "pictures"]) == 1
    said = capsys.readouterr().err
    assert "--data.root is an option of folder" in said and "add --data folder" in said


def test_the_help_tells_of_data_without_importing_any(capsys: pytest.CaptureFixture) -> None:
    assert main(["tokenize", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--data NAME the pictures, by default the embedded photographs" in shown
