"""Recipes: names in place of dotted paths, overrides, and one clear line for everything that is wrong."""

import tempfile
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentError, ArgumentParser

from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.io.recipes import instantiate, parse, parse_layers, parse_options, parse_tree, read, recipe_parser
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import EntropyGate, FixedGate

RECIPE = """
tokenizer:
  class_path: dq-vae
  init_args:
    encoder: {class_path: patch, init_args: {factors: [4, 8], width: 16, blocks: 1, channels: 16}}
    gate: {class_path: entropy, init_args: {ratios: {4: 0.5, 8: 0.5}}}
    quantizer: {class_path: ema-vq, init_args: {size: 16, dimension: 8}}
    decoder: {class_path: pixel-shuffle, init_args: {factor: 4, channels: 16, width: 16, blocks: 1}}
"""


@pytest.fixture
def parser() -> ArgumentParser:
    parser = recipe_parser("vltok fit")
    parser.add_argument("--config", action="config")
    parser.add_argument("--out", type=str | None)
    parser.add_subclass_arguments(Tokenizer, "tokenizer", required=True)
    return parser


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def _edited(key: str, value: Any) -> dict:
    """The recipe with the value at a dotted key replaced, or taken away where the value is ``...``."""
    tree = yaml.safe_load(RECIPE)
    *way, last = key.split("/")
    node = tree
    for part in way:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return tree


def test_names_become_classes(parser: ArgumentParser, recipe: Path) -> None:
    tokenizer = instantiate(parser, parse(parser, ["--config", str(recipe)])).tokenizer
    assert isinstance(tokenizer.encoder, PatchEncoder) and isinstance(tokenizer.gate, EntropyGate)
    assert tokenizer.gate.ratios.shares == (0.5, 0.5)


def test_overrides_reach_every_level(parser: ArgumentParser, recipe: Path) -> None:
    arguments = ["--config", str(recipe), "--tokenizer.quantizer.size", "32", "--tokenizer.encoder.width=24"]
    init_args = parse(parser, arguments).tokenizer.init_args
    assert (init_args.quantizer.init_args.size, init_args.encoder.init_args.width) == (32, 24)
    assert init_args.quantizer.init_args.dimension == 8


@pytest.mark.parametrize(
    "override",
    [
        ["--tokenizer.gate", "fixed"],
        ["--tokenizer.gate=fixed"],
        ["--tokenizer.gate.class_path", "fixed"],
        ["--tokenizer.gate.class_path=fixed"],
        ["--tokenizer.gate", "vltok.tokenizers.gates.FixedGate"],
        ["--tokenizer.gate", "{class_path: fixed, init_args: {granularities: 2}}"],
    ],
)
def test_a_component_is_replaced_by_name(parser: ArgumentParser, recipe: Path, override: list[str]) -> None:
    arguments = ["--config", str(recipe), *override, "--tokenizer.gate.granularities", "2"]
    gate = instantiate(parser, parse(parser, arguments)).tokenizer.gate
    assert isinstance(gate, FixedGate) and gate.granularities == 2


def test_a_component_is_replaced_by_a_mapping_with_fractions(parser: ArgumentParser, recipe: Path) -> None:
    gate = '{"class_path": "random", "init_args": {"ratios": {"4": 0.25, "8": 0.75}}}'
    found = parse(parser, ["--config", str(recipe), f"--tokenizer.gate={gate}"]).tokenizer.init_args.gate
    assert found.class_path == "vltok.tokenizers.gates.RandomGate"
    assert found.init_args.ratios == {4: 0.25, 8: 0.75}


def test_a_component_is_taken_away_by_null(parser: ArgumentParser, tmp_path: Path) -> None:
    tree = _edited("tokenizer/init_args/budget", {"class_path": "ratio", "init_args": {"ratios": {4: 0.5, 8: 0.5}}})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    arguments = ["--config", str(tmp_path / "recipe.yaml"), "--tokenizer.budget", "null"]
    assert parse(parser, arguments).tokenizer.init_args.budget is None


def test_a_mapping_is_replaced_whole(parser: ArgumentParser, recipe: Path) -> None:
    arguments = ["--config", str(recipe), "--tokenizer.gate.ratios", "{4: 0.25, 8: 0.75}"]
    assert parse(parser, arguments).tokenizer.init_args.gate.init_args.ratios == {4: 0.25, 8: 0.75}


def test_print_config_can_be_read_back(
    parser: ArgumentParser, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        parse(parser, ["--config", str(recipe), "--tokenizer.encoder.width", "24", "--print_config"])
    printed = capsys.readouterr().out
    tree = yaml.safe_load(printed)
    assert tree["tokenizer"]["class_path"] == "dq-vae"
    assert tree["tokenizer"]["init_args"]["gate"]["init_args"]["ratios"] == {4: 0.5, 8: 0.5}
    (tmp_path / "again.yaml").write_text(printed)
    again = parse(parser, ["--config", str(tmp_path / "again.yaml")])
    assert again.tokenizer == parse(parser, ["--config", str(recipe), "--tokenizer.encoder.width", "24"]).tokenizer


INNER = "tokenizer/init_args"
WRONG = {
    "misspelt key": (
        f"{INNER}/encoder/init_args/widht",
        3,
        "no key of tokenizer.encoder (PatchEncoder) is called 'widht'; there are: factors, width, blocks, channels, "
        "dropout; did you mean 'width'?",
    ),
    "misspelt key of a mapping": (
        f"{INNER}/gate/init_args/ratioz",
        {4: 1.0},
        "no key of tokenizer.gate (EntropyGate) is called 'ratioz'; there are: ratios, thresholds, bins; "
        "did you mean 'ratios'?",
    ),
    "misspelt part": (
        f"{INNER}/encodr",
        {"class_path": "vltok.tokenizers.encoders.PatchEncoder"},
        "no key of tokenizer (DQVAE) is called 'encodr'; there are: encoder, gate, quantizer, decoder, budget; "
        "did you mean 'encoder'?",
    ),
    "misspelt top": ("tokeniser", 1, "no key or option is called 'tokeniser'; did you mean '--tokenizer'?"),
    "misspelt top of a component": (
        "tokeniser",
        {"class_path": "dq-vae", "init_args": {"gate": {"class_path": "fixed", "init_args": {"granularity": 0}}}},
        "no key or option is called 'tokeniser'; did you mean '--tokenizer'?",
    ),
    "wrong type": (f"{INNER}/encoder/init_args/width", "wide", "tokenizer.encoder.width must be int, not 'wide'"),
    "wrong optional type": (
        f"{INNER}/gate/init_args/thresholds",
        3,
        "tokenizer.gate.thresholds must be list or null, not '3'",
    ),
    "missing value": (
        f"{INNER}/encoder/init_args/factors",
        ...,
        "tokenizer.encoder (PatchEncoder) needs factors: give it in the recipe, or as --tokenizer.encoder.factors on "
        "the command line",
    ),
    "missing part": (
        f"{INNER}/decoder",
        ...,
        "tokenizer (DQVAE) needs decoder: give it in the recipe, or as --tokenizer.decoder on the command line",
    ),
    "missing tokenizer": (
        "tokenizer",
        ...,
        "the recipe needs tokenizer: give it in the recipe, or as --tokenizer on the command line",
    ),
    "misspelt component": (
        f"{INNER}/gate/class_path",
        "entropi",
        "no gate is called 'entropi'; there are: entropy, feature, fixed, gain, random, surprise; did you mean "
        "'entropy'?",
    ),
    "no such class": (
        f"{INNER}/gate/class_path",
        "vltok.tokenizers.gates.Nothing",
        "tokenizer.gate.class_path: 'vltok.tokenizers.gates.Nothing' cannot be imported: module "
        "'vltok.tokenizers.gates' has no attribute 'Nothing'",
    ),
    "no such module": (
        f"{INNER}/gate/class_path",
        "nowhere.gates.Gate",
        "tokenizer.gate.class_path: 'nowhere.gates.Gate' cannot be imported: No module named 'nowhere'",
    ),
    "class of another kind": (
        f"{INNER}/gate/class_path",
        "vltok.tokenizers.encoders.PatchEncoder",
        "tokenizer.gate: 'vltok.tokenizers.encoders.PatchEncoder' is no Gate; there are: entropy, feature, fixed, "
        "gain, random, surprise",
    ),
    "misspelt init_args": (
        f"{INNER}/gate",
        {"class_path": "fixed", "initargs": {}},
        "tokenizer.gate must be a component's name or dotted path, or hold class_path and init_args alone; there are: "
        "entropy, feature, fixed, gain, random, surprise",
    ),
    "number for a component": (
        f"{INNER}/budget",
        4,
        "tokenizer.budget must be a component's name or dotted path, or hold class_path and init_args alone, not 4; "
        "there are: code-length, ratio",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_exact_line(parser: ArgumentParser, tmp_path: Path, case: str) -> None:
    key, value, message = WRONG[case]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(_edited(key, value)))
    with pytest.raises(UserError) as raised:
        parse(parser, ["--config", str(tmp_path / "recipe.yaml")])
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--tokenizer.encoder.widht", "3"], "did you mean 'width'?"),
        (["--tokenizer.encoder.width", "wide"], "tokenizer.encoder.width must be int, not 'wide'"),
        (["--tokenizer.gate.ratios", "3"], "tokenizer.gate.ratios must be dict, not '3'"),
        (["--tokenizer.gate", "entropi"], "did you mean 'entropy'?"),
        (["--tokenizer.gate=entropi"], "did you mean 'entropy'?"),
        (["--tokenizer.gate", "vltok.tokenizers.gates.No"], "tokenizer.gate.class_path: 'vltok.tokenizers.gates.No'"),
        (["--tokeniser.gate", "fixed"], "no key or option is called 'tokeniser.gate'"),
        (["--uot", "3"], "no key or option is called 'uot'; did you mean '--out'?"),
        (["--out"], "--out: expected one argument"),
        (["alone"], "'alone' stands alone"),
    ],
)
def test_a_wrong_override_is_one_line(parser: ArgumentParser, recipe: Path, override: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(parser, ["--config", str(recipe), *override])
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"model: [", "is not YAML: line "),
        (b"a: b: c", "is not YAML: line 1, column 5: mapping values are not allowed"),
        (b"- model", "must hold keys and values, such as 'model: …', not list"),
        (b"", "must hold keys and values"),
        (b"\xff\xfe\xfa", "cannot be read: it is not text"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read(path)
    assert message in str(raised.value) and str(path) in str(raised.value)


def test_a_constructor_s_own_error_comes_through(parser: ArgumentParser) -> None:
    tree = _edited(f"{INNER}/gate/init_args/ratios", {4: 0.5, 8: 0.6})
    with pytest.raises(UserError, match=r"^ratios must be shares .* that sum to 1"):
        instantiate(parser, parse_tree(parser, tree))


def test_a_constructor_s_error_comes_through_an_optional_part(parser: ArgumentParser) -> None:
    tree = _edited(f"{INNER}/budget", {"class_path": "ratio", "init_args": {"ratios": {4: 0.5, 8: 0.6}}})
    with pytest.raises(UserError, match=r"^ratios must be shares .* that sum to 1"):
        instantiate(parser, parse_tree(parser, tree))


def test_another_error_of_a_constructor_names_the_class(parser: ArgumentParser) -> None:
    tree = _edited(f"{INNER}/decoder/init_args/width", -1)
    with pytest.raises(UserError, match=r"^PixelShuffleDecoder cannot be built: "):
        instantiate(parser, parse_tree(parser, tree))


def test_tabs_are_named(tmp_path):
    (tmp_path / "tab.yaml").write_text("model:\n\tclass_path: x\n")
    with pytest.raises(UserError, match=r"line 2, column 1: .*; indent with spaces, not tabs"):
        read(tmp_path / "tab.yaml")


class Place:
    """A class of parts with texts among its arguments."""

    def __init__(self, root: str, names: str | list[str] = "", label: str | None = None, size: int = 1) -> None:
        pass


def _of_texts() -> ArgumentParser:
    parser = recipe_parser("vltok fit")
    parser.add_argument("--config", action="config")
    parser.add_argument("--out", type=str)
    parser.add_subclass_arguments(Place, "place", required=True)
    return parser


#: What YAML, or one of its versions, takes for something else than a text.
STRANGE = (
    *("12:00:00", "2:00:00:00", "1e5", "1e-4", "7e10", "no", "on", "2024", "0x10", "1_000", ".5", "~", "2024-01-31"),
    *("007", "True", "a:b", "[a]", "{a}", "{a:1}", "'q'", "%", "*a"),
)
PLAIN = [text for text in STRANGE if text[0] not in "[{'%*"]


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize("key", ["root", "names", "label"])
def test_a_text_in_a_recipe_needs_no_quotes(key: str, text: str, tmp_path: Path) -> None:
    arguments = {"root": "x", key: text}
    lines = "".join(f"    {name}: {value}\n" for name, value in arguments.items())
    path = tmp_path / "recipe.yaml"
    path.write_text(f"place:\n  class_path: {Place.__module__}.Place\n  init_args:\n{lines}")
    wanted = None if (key, text) == ("label", "~") else text
    assert parse(_of_texts(), ["--config", str(path)]).place.init_args[key] == wanted


_TEXTS = st.sampled_from([*STRANGE, "null", "None", "a b", ": ", "- a", ""]) | st.text(max_size=10)


@settings(max_examples=60, deadline=None)
@given(_TEXTS)
def test_the_config_of_a_run_reads_back_equal_whatever_texts_it_holds(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    parser = _of_texts()
    place = {"class_path": f"{Place.__module__}.Place", "init_args": {"root": text, "names": [text]}}
    parsed = parse_layers(parser, [{"out": text, "place": place}])
    assert (parsed.out, parsed.place.init_args.root, parsed.place.init_args.names) == (text, text, [text])
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(parser.dump(parsed), encoding="utf-8")
    again = parse(parser, ["--config", str(path)])
    assert again.place == parsed.place and again.out == text


@settings(max_examples=60, deadline=None)
@given(_TEXTS.filter(lambda text: "\0" not in text))
def test_a_text_of_the_command_line_is_taken_as_it_is(text: str) -> None:
    given_ = [f"--place={Place.__module__}.Place", f"--out={text}"]
    if text not in ("null", "None"):  # no value
        given_.append(f"--place.root={text}")
    else:
        given_.append("--place.root=x")
    parsed = parse(_of_texts(), given_)
    assert parsed.out == text and parsed.place.init_args.root in (text, "x")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("1e5", "place.size must be int, not '100000.0': write 100000"),
        ("1.5", "place.size must be int, not '1.5': write a whole number"),
        ("no", "place.size must be int, not 'no'"),
    ],
)
def test_a_number_of_another_type_is_refused_with_the_remedy(written: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(_of_texts(), [f"--place={Place.__module__}.Place", "--place.root=x", f"--place.size={written}"])
    assert str(raised.value) == message


@pytest.mark.parametrize("text", ["rate: .nan", "anything: .NaN", "shares: {4: .nan}"])
def test_nan_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"{text}\n")
    with pytest.raises(UserError, match=r"^(rate|anything|shares\.4) is NaN, which is no number: give one$"):
        parse(_scalars(), ["--config", str(tmp_path / "recipe.yaml")])


def test_nan_is_refused_by_the_key_that_is_written(parser: ArgumentParser, recipe: Path) -> None:
    with pytest.raises(UserError, match=r"^tokenizer\.quantizer\.decay is NaN"):
        parse(parser, ["--config", str(recipe), "--tokenizer.quantizer.decay", ".nan"])


def test_a_list_is_no_text_in_quotes(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("out: [a, b]\n")
    with pytest.raises(UserError, match=r"""^out must be str, not "\['a', 'b'\]"$"""):
        parse(_of_texts(), ["--config", str(tmp_path / "recipe.yaml")])


def test_choices_are_listed() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--split", type=Literal["all", "train"] | None)
    with pytest.raises(ArgumentError, match=r"split must be one of 'all', 'train' or null, not 'test'$"):
        parse_options(parser, ["--split", "test"])


def test_an_option_is_written_in_full(parser: ArgumentParser, recipe: Path) -> None:
    """As keys of a recipe are: a shorter one could come to mean another option in the next version."""
    with pytest.raises(UserError, match=r"no key or option is called 'ou'.*"):
        parse(parser, ["--config", str(recipe), "--ou", "x"])


def _scalars() -> ArgumentParser:
    parser = recipe_parser("vltok fit")
    parser.add_argument("--config", action="config")
    types: dict[str, Any] = {
        "text": str,
        "perhaps": str | None,
        "either": int | str | None,
        "anything": Any,
        "texts": list[str],
        "mixed": list[int | str],
        "named": dict[str, str],
        "rate": float,
        "rates": list[float],
        "shares": dict[int, float],
        "count": int,
        "flag": bool,
    }
    for name, hint in types.items():
        parser.add_argument(f"--{name}", type=hint)
    return parser


#: What YAML 1.1 takes for numbers, dates and truth values, and YAML 1.2 for texts.
OLD = ["1:30", "12:00:00", "-1:30", "1:30.5", "on", "yes", "no", "Off", "2024-01-01", "٣"]
_TEXTS = st.sampled_from([*OLD, "null", "None", "~", "1e5", "0o17", "1_000", ".5", "", "{a", "[1", "a: b", "2024"])


@settings(deadline=None)
@given(_TEXTS | st.text("0123456789eExoa_.:+-~nulftrsENO ,{}[]#&*!|>'\"%@\n\x85", max_size=8) | st.text(max_size=8))
def test_every_text_of_a_written_recipe_reads_back_equal(text: str) -> None:
    tree = {"text": text, "perhaps": text, "either": text, "anything": text, "texts": [text], "mixed": [text, 5]}
    config = parse_tree(_scalars(), {**tree, "named": {"a": text}})
    assert config.as_dict() | tree == config.as_dict() and config.named == {"a": text}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_bytes(_scalars().dump(config).encode())
        again = parse(_scalars(), ["--config", str(path)])
    assert {**again.as_dict(), "config": None} == {**config.as_dict(), "config": None}


@pytest.mark.parametrize("text", OLD)
@pytest.mark.parametrize("key", ["rate", "rates", "shares", "count", "flag"])
def test_numbers_of_yaml_1_1_are_no_numbers(key: str, text: str, tmp_path: Path) -> None:
    written = {"rates": f"[0.5, {text}]", "shares": f"{{4: {text}}}"}.get(key, text)
    (tmp_path / "recipe.yaml").write_text(f"{key}: {written}\n")
    for arguments in (["--config", str(tmp_path / "recipe.yaml")], [f"--{key}={written}"]):
        with pytest.raises(UserError, match=rf"^{key}[.\d]* must be \w+, not '{text}'"):
            parse(_scalars(), arguments)


def test_truth_values_of_yaml_1_1_have_their_remedy() -> None:
    with pytest.raises(UserError, match="flag must be bool, not 'on': write true"):
        parse(_scalars(), ["--flag", "on"])


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("count", "0o17", 15),
        ("count", "1_000", 1000),
        ("count", "0x10", 16),
        ("count", "007", 7),
        ("rate", ".5", 0.5),
        ("rate", "1e-4", 0.0001),
        ("rate", "1_000.5", 1000.5),
        ("rate", "'2'", 2.0),
        ("flag", "True", True),
        ("either", "2024", 2024),
        ("either", "1e-4", "1e-4"),
        ("either", "'2024'", "2024"),
        ("perhaps", "'null'", "null"),
        ("perhaps", "null", None),
        ("count", "null", None),
        ("text", "no", "no"),
    ],
)
def test_what_a_scalar_of_a_recipe_means(key: str, text: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"{key}: {text}\n")
    found = parse(_scalars(), ["--config", str(tmp_path / "recipe.yaml")])[key]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["null", "None", "~", "1:30", "1e5", "no", "'a'", "{", "2024"])
def test_what_stands_where_an_option_of_a_verb_takes_text_is_that_text(text: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--labels", type=str | None)
    parser.add_argument("--out", type=str)
    parser.add_argument("place", type=str)
    found = parse_options(parser, ["--labels", text, f"--out={text}", text]).as_dict()
    assert found == {"labels": text, "out": text, "place": text}


def test_numbers_of_a_verbs_options() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--batch-size", type=int)
    assert parse_options(parser, ["--batch-size", "0o17"]).batch_size == 15
    with pytest.raises(ArgumentError, match=r"^--batch-size must be int, not '1:30'$"):
        parse_options(parser, ["--batch-size=1:30"])


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_recipes_of_any_editor(parser: ArgumentParser, tmp_path: Path, mark: bytes, end: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(mark + end.join(RECIPE.encode().split(b"\n")))
    for found in (parse(parser, ["--config", str(path)]), parse_layers(parser, [path])):
        assert isinstance(instantiate(parser, found).tokenizer.encoder, PatchEncoder)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tokenizer.gate.granularities", "2", "--tokenizer.gate", "fixed"],
        ["--tokenizer.gate.granularities=2", "--out=x", "--tokenizer.gate=fixed"],
        [
            "--tokenizer.gate=random",
            "--tokenizer.gate.seed=3",
            "--tokenizer.gate=fixed",
            "--tokenizer.gate.granularities=2",
        ],
    ],
)
def test_a_component_may_be_named_after_its_options(parser: ArgumentParser, recipe: Path, arguments: list[str]) -> None:
    gate = instantiate(parser, parse(parser, ["--config", str(recipe), *arguments])).tokenizer.gate
    assert isinstance(gate, FixedGate) and gate.granularities == 2
