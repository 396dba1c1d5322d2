"""Names are resolved by the types of the parameters that they fill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.io.recipe_names import RecipeNames
from vltok.io.recipes import parse, parse_tree, recipe_parser, with_names
from vltok.tokenizers.gates import FixedGate

from ..distributions import installed

#: Keys that say nothing of what they take, or something else.
SOURCE = """
from __future__ import annotations
from torch import nn
from vltok.interfaces import Decoder, Encoder, Gate, Tokenizer
class Shape: pass
class Round(Shape):
    def __init__(self, side: int = 1): pass
class Odd(Tokenizer):
    def __init__(
        self,
        encoder: str = "resnet50",
        coarse_decoder: Decoder | None = None,
        gates: list[Gate] | None = None,
        by_factor: dict[int, Encoder | None] | None = None,
        any_module: nn.Module | None = None,
        outline: Shape | None = None,
        word_or_gate: str | Gate = "fixed",
        quantizer: Encoder | None = None,
    ) -> None: pass
for name in Odd.__abstractmethods__: setattr(Odd, name, None)
Odd.__abstractmethods__ = frozenset()
"""
POINTS = {
    "tokenizer": {"odd": "odd_module:Odd"},
    "kinds": {"shape": "odd_module:Shape"},
    "shape": {"round": "odd_module:Round"},
}
PIXELS = {"factor": 4, "channels": 3, "width": 8, "blocks": 1}
PATCH = {"factors": [4, 8], "width": 16, "blocks": 1, "channels": 16}


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[None]:
    """A plug-in with a kind of its own."""
    with installed(tmp_path, "odd", POINTS, SOURCE):
        yield


@pytest.fixture
def parser():
    parser = recipe_parser("test")
    parser.add_argument("--config", action="config")
    parser.add_argument("--out", type=str | None)
    parser.add_subclass_arguments(Tokenizer, "tokenizer")
    return parser


def _odd(**arguments: Any) -> dict[str, Any]:
    return {"tokenizer": {"class_path": "odd", "init_args": arguments}}


def test_a_word_stays_a_word_where_its_parameter_is_one(odd, parser) -> None:
    for word in ("resnet50", "vqgan"):
        assert parse_tree(parser, _odd(encoder=word)).tokenizer.init_args.encoder == word
        given = parse(parser, ["--tokenizer=odd", "--tokenizer.encoder", word, "--out", "patch"])
        assert (given.tokenizer.init_args.encoder, given.out) == (word, "patch")
    assert parse_tree(parser, _odd(word_or_gate="random")).tokenizer.init_args.word_or_gate == "random"


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("coarse_decoder", {"class_path": "pixel-shuffle", "init_args": PIXELS}, "decoders.PixelShuffleDecoder"),
        ("gates", [{"class_path": "fixed", "init_args": {"granularities": 2}}], "gates.FixedGate"),
        ("by_factor", {4: {"class_path": "patch", "init_args": PATCH}}, "encoders.PatchEncoder"),
        ("outline", "round", "odd_module.Round"),
        ("outline", {"class_path": "round", "init_args": {"side": 3}}, "odd_module.Round"),
        ("quantizer", {"class_path": "patch", "init_args": PATCH}, "encoders.PatchEncoder"),
        ("word_or_gate", {"class_path": "fixed", "init_args": {"granularities": 2}}, "gates.FixedGate"),
        ("any_module", {"class_path": "vltok.tokenizers.decoders.PixelShuffleDecoder", "init_args": PIXELS}, "Decoder"),
    ],
)
def test_a_name_means_a_component_where_its_parameter_is_one(odd, parser, key: str, value: Any, path: str) -> None:
    config = parse_tree(parser, _odd(**{key: value}))
    found = config.tokenizer.init_args[key]
    found = found[0] if key == "gates" else found[4] if key == "by_factor" else found
    assert found.class_path.endswith(path)
    # what is written again reads back equal, and is the same that was written
    written = yaml.safe_load(parser.dump(config))
    assert parse_tree(parser, written) == config
    shown = written["tokenizer"]["init_args"][key]
    shown = shown[0] if key == "gates" else shown[4] if key == "by_factor" else shown
    given = value[0] if key == "gates" else value[4] if key == "by_factor" else value
    assert shown["class_path"] == (given if isinstance(given, str) else given["class_path"])


def test_a_name_of_another_kind_is_not_found(odd, parser) -> None:
    with pytest.raises(UserError, match=r"no decoder is called 'patch'; there are: pixel-shuffle, positional, vqgan"):
        parse_tree(parser, _odd(coarse_decoder="patch"))
    with pytest.raises(UserError, match=r"no shape is called 'rond'.*did you mean 'round'"):
        parse_tree(parser, _odd(outline={"class_path": "rond"}))
    with pytest.raises(UserError, match=r"tokenizer.outline: '.*FixedGate' is no Shape; there are: round"):
        parse_tree(parser, _odd(outline={"class_path": "vltok.tokenizers.gates.FixedGate"}))


def test_later_recipes_and_options_know_what_the_earlier_ones_build(odd, parser, tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("tokenizer: {class_path: odd}\n")
    (tmp_path / "second.yaml").write_text("tokenizer.outline: round\n")
    config = ["--config", str(tmp_path / "first.yaml"), "--config", str(tmp_path / "second.yaml")]
    options = ["--tokenizer.outline.side", "3", "--tokenizer.coarse_decoder=pixel-shuffle"]
    found = parse(parser, [*config, *options, "--tokenizer.coarse_decoder.factor", "4"])
    assert found.tokenizer.init_args.outline.class_path == "odd_module.Round"
    assert found.tokenizer.init_args.outline.init_args.side == 3
    assert found.tokenizer.init_args.coarse_decoder.class_path.endswith("PixelShuffleDecoder")
    assert [str(each) for each in found.config] == config[1::2]


def test_a_class_of_no_kind_is_followed(odd, parser) -> None:
    for arguments in (
        ["--tokenizer=odd", "--tokenizer.any_module", "vltok.tokenizers.decoders.PositionalDecoder"],
        ["--tokenizer=odd", "--tokenizer.any_module.class_path=vltok.tokenizers.decoders.PositionalDecoder"],
    ):
        with pytest.raises(UserError, match="no decoder is called 'pixel-shufle'"):
            parse(parser, [*arguments, "--tokenizer.any_module.decoder", "pixel-shufle"])


def test_what_is_replaced_is_forgotten() -> None:
    names = RecipeNames({"tokenizer": Tokenizer})
    names.option("tokenizer", "dq-vae")
    assert names.kind(("tokenizer", "budget")) == "budget"
    for value in ("null", "nowhere.Class"):
        names.option("tokenizer", "dq-vae")
        names.option("tokenizer", value)
        assert names.kind(("tokenizer", "budget")) is None


def test_nothing_is_imported_that_is_not_to_be(tmp_path: Path) -> None:
    with installed(tmp_path, "odd", POINTS, SOURCE):
        names = RecipeNames({"tokenizer": Tokenizer}, load=lambda path: None)
        tree = {"tokenizer": {"class_path": "odd_module.Odd", "init_args": {"outline": "round"}}}
        assert names.resolved(tree) == tree
        assert "odd_module" not in sys.modules


def test_a_class_by_another_path_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """jsonargparse writes the shortest path that leads to a class, which may be a re-export."""
    monkeypatch.setattr("vltok.tokenizers.FixedGate", FixedGate, raising=False)
    tree = {"gate": {"class_path": "vltok.tokenizers.FixedGate"}}
    assert with_names(tree, {"gate": FixedGate}) == {"gate": {"class_path": "fixed"}}
    tree = {"gate": {"class_path": "collections.FixedGate"}}
    assert with_names(tree, {"gate": FixedGate}) == tree
