import inspect

import pytest
from jsonargparse import ArgumentParser

import vltok
from vltok.cli.main import main
from vltok.verbs.options import add_options, verb_parser, with_bundle_path, with_default_data


def test_a_bundle_beside_us_is_no_registered_name() -> None:
    assert with_bundle_path(["--tokenizer", "b", "--out", "b"]) == ["--tokenizer", "./b", "--out", "b"]
    assert with_bundle_path(["--tokenizer=b"]) == ["--tokenizer=./b"]
    assert with_bundle_path(["--tokenizer", "user/b"]) == ["--tokenizer", "user/b"]


def test_photographs_are_the_default_and_leave_no_trace_in_other_data() -> None:
    assert with_default_data(["--data.size=32"]) == ["--data=photos", "--data.size=32"]
    for named in (["--data", "folder"], ["--data=folder"], ["--config", "a.yaml"]):
        assert with_default_data(named) == named


def test_an_option_of_other_data_alone_asks_for_its_name(capsys: pytest.CaptureFixture) -> None:
    assert main(["tokenize", "--tokenizer", "a/b", "--out", "codes", "--data.root", "pictures"]) == 1
    said = capsys.readouterr().err
    assert "--data.root is an option of folder" in said and "add --data folder" in said


def test_the_help_tells_of_data_without_importing_any(capsys: pytest.CaptureFixture) -> None:
    assert main(["tokenize", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--data NAME the pictures, by default the embedded photographs" in shown


def test_a_function_declares_the_options_of_its_verb() -> None:
    parser = verb_parser("pack", "folder", "shards")
    options = parser.parse_args(["a", "b", "--size-limit", "3", "--keep-order"])
    assert (options.folder, options.shards, options.size_limit, options.keep_order) == ("a", "b", 3, True)
    assert (options.count, options.max_corrupt, options.workers) == (10_000, 0.01, None)
    assert "--size-limit SIZE_LIMIT most megabytes in a shard (type: int" in " ".join(parser.format_help().split())


@pytest.mark.parametrize(
    "verb", ["detokenize", "doctor", "evaluate", "info", "rate", "reconstruct", "sample", "tokenize"]
)
def test_what_is_declared_is_what_the_function_takes(verb: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    add_options(parser, verb, arguments=["--help"])
    declared = {action.dest: action for action in parser._actions if action.dest != "help"}
    parameters = inspect.signature(getattr(vltok, verb)).parameters
    assert set(parameters) - set(declared) <= {"progress", "sampling", "token"}
    for name in set(declared) - {"data"}:
        default = parameters[name].default
        assert declared[name].default == (None if default is inspect.Parameter.empty else default)
        assert declared[name].help and "`" not in declared[name].help and "ython, " not in declared[name].help
