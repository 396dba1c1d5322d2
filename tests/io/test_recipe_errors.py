"""Each message of jsonargparse that is read by its English: the real one raises it, and ours says what is wrong."""

import pytest
from jsonargparse import ArgumentParser

from vltok.errors import UserError
from vltok.interfaces import Gate
from vltok.io.recipes import parse, recipe_parser
from vltok.io.trust import only_imports


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    """A recipe of one component and one number."""
    parser = recipe_parser("recipe")
    parser.add_argument("--config", action="config")
    parser.add_argument("--count", type=int)
    parser.add_subclass_arguments(Gate, "gate")
    return parser


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gate={class_path: random, init_args: {ratois: 1}}"], "no key of gate (RandomGate) is called 'ratois'; "),
        (["--cuont", "3"], "no key or option is called 'cuont'; did you mean '--count'?"),
        (["word"], "'word' stands alone: every value follows an option"),
        (["--gate={class_path: random}"], "gate (RandomGate) needs ratios: give it in the recipe, or as --gate.ratios"),
        (["--gate=nowhere.Nothing"], "gate.class_path: 'nowhere.Nothing' cannot be imported: No module named"),
        (
            ["--gate=vltok.codes.Nothing"],
            "gate.class_path: 'vltok.codes.Nothing' cannot be imported: module 'vltok.codes'",
        ),
        (["--gate=vltok.codes.Codes"], "gate: 'vltok.codes.Codes' is no Gate; there are: entropy, "),
        (["--gate={class_path: vltok.codes.Codes}"], "gate: 'vltok.codes.Codes' is no Gate; there are: entropy, "),
        (["--gate=[1]"], "gate must be a component's name or dotted path"),
        (["--gate={ratios: {8: 1.0}}"], "gate must be a component's name or dotted path"),
        (["--gate={class_path: 3}"], "gate.class_path must be a component's name or dotted path; there are: entropy, "),
        (["--gate={class_path: [1]}"], "gate.class_path must be a component's name or dotted path; there are: entropy"),
        (["--gate=a/word"], "gate: 'a/word' is no dotted path of a class"),
        (["--count", "3.5"], "count must be int, not '3.5': write a whole number"),
    ],
)
def test_what_jsonargparse_says_is_understood(parser: ArgumentParser, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(parser, arguments)
    assert message in str(raised.value)


def test_an_import_that_needs_trust_is_told_of(parser: ArgumentParser) -> None:
    with only_imports(()), pytest.raises(UserError, match=r"gate.* is 'vltok\.codes\.Codes', which is no reg"):
        parse(parser, ["--gate={class_path: vltok.codes.Codes}"])
