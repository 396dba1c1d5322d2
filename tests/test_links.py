"""What the parts of a component must agree on is said once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import vltok
from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.io.recipes import parse, parse_tree, recipe_parser

from .distributions import installed

PATCH = {"class_path": "patch", "init_args": {"factors": [4, 8], "width": 4, "blocks": 1, "channels": 12}}
FEATURE = {"class_path": "feature", "init_args": {"norm_groups": 2}}
PIXELS = {"class_path": "pixel-shuffle", "init_args": {"width": 4, "blocks": 1}}
RATIOS = {4: 0.25, 8: 0.75}
RATIO = {"class_path": "ratio", "init_args": {"ratios": RATIOS}}
EMA = {"class_path": "ema-vq", "init_args": {"size": 8, "dimension": 2}}

PLUGIN = """
from vltok.tokenizers.gates import FixedGate
class Plain(FixedGate):
    def __init__(self, seed: int = 0): super().__init__(seed, 2)
class Wide(FixedGate):
    def __init__(self, channels: int): super().__init__(0, 2); self.channels = channels
"""


def described(**parts: Any) -> dict[str, Any]:
    """A tokenizer that leaves out all that follows."""
    arguments = {"encoder": PATCH, "gate": FEATURE, "quantizer": EMA, "decoder": PIXELS, **parts}
    return {"tokenizer": {"class_path": "dq-vae", "init_args": arguments}}


@pytest.fixture
def parser():
    parser = recipe_parser("test")
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Tokenizer, "tokenizer")
    return parser


def test_parts_follow_the_encoder(parser) -> None:
    arguments = parse_tree(parser, described(budget=RATIO)).tokenizer.init_args
    assert (arguments.gate.init_args.channels, arguments.gate.init_args.granularities) == (12, 2)
    assert (arguments.decoder.init_args.channels, arguments.decoder.init_args.factor) == (12, 4)
    built = vltok.build(described(budget=RATIO)["tokenizer"])
    assert built.decoder.factor == 4 and built.spec.factors == (8, 4)


def test_a_default_is_followed_too(parser) -> None:
    encoder = {"class_path": "patch", "init_args": {"factors": [8, 2, 4]}}
    arguments = parse_tree(parser, described(encoder=encoder)).tokenizer.init_args
    assert (arguments.gate.init_args.channels, arguments.gate.init_args.granularities) == (128, 3)
    assert arguments.decoder.init_args.factor == 2


@pytest.mark.parametrize("budget", [RATIO, {"class_path": "code-length", "init_args": {"length": 6.0}}, None])
def test_shares_are_said_once(parser, budget: dict[str, Any] | None) -> None:
    gate = {"class_path": "entropy", "init_args": {"ratios": RATIOS}}
    arguments = parse_tree(parser, described(gate=gate, budget=budget)).tokenizer.init_args
    assert arguments.gate.init_args.ratios == RATIOS
    if budget is RATIO:
        other = parse_tree(parser, described(gate="entropy", budget=budget)).tokenizer.init_args
        third = parse_tree(parser, described(gate=gate, budget="ratio")).tokenizer.init_args
        assert other.gate.init_args.ratios == third.budget.init_args.ratios == RATIOS
    elif budget is not None:
        assert arguments.budget.init_args.factors == [4, 8]


def test_recipes_and_options_are_followed_one_after_the_other(parser, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(described(budget=RATIO)))
    second.write_text(
        "tokenizer.encoder.factors: [8, 16]\ntokenizer.gate: random\ntokenizer.budget.ratios: {8: 1.0, 16: 0.0}\n"
    )
    given = ["--config", str(first), "--config", str(second)]
    arguments = parse(parser, given).tokenizer.init_args
    assert arguments.gate.init_args.ratios == {8: 1.0, 16: 0.0} and arguments.decoder.init_args.factor == 8
    arguments = parse(parser, [*given, "--tokenizer.encoder.channels=6", "--tokenizer.gate", "feature"]).tokenizer
    assert arguments.init_args.gate.init_args.channels == arguments.init_args.decoder.init_args.channels == 6
    # what follows is shown, and read back equal
    shown = parser.dump(parse(parser, given))
    assert (
        "factor: 8" in shown and parse_tree(parser, yaml.safe_load(shown)).tokenizer == parse(parser, given).tokenizer
    )


def test_what_is_said_all_the_same_must_agree(parser) -> None:
    gate = {"class_path": "feature", "init_args": {"channels": 12, "granularities": 2, "norm_groups": 2}}
    assert parse_tree(parser, described(gate=gate)).tokenizer.init_args.gate.init_args.channels == 12
    gate["init_args"]["channels"] = 8
    with pytest.raises(UserError, match=r"tokenizer.gate.channels is 8, but tokenizer.encoder.channels is 12: leave"):
        parse_tree(parser, described(gate=gate))


def test_a_decoder_may_be_of_another_width(parser) -> None:
    decoder = {"class_path": "pixel-shuffle", "init_args": {"channels": 6, "width": 4, "blocks": 1}}
    assert vltok.build(described(decoder=decoder, gate={**FEATURE})["tokenizer"]).decoder.channels == 6


def test_a_plugin_gets_what_it_has_an_argument_for(parser, tmp_path: Path) -> None:
    points = {"gate": {"plain": "gates_module:Plain", "wide": "gates_module:Wide"}}
    with installed(tmp_path, "gates", points, PLUGIN):
        assert parse_tree(parser, described(gate="plain")).tokenizer.init_args.gate.init_args.as_dict() == {"seed": 0}
        assert parse_tree(parser, described(gate="wide")).tokenizer.init_args.gate.init_args.channels == 12


def test_a_wrong_source_is_said_itself(parser) -> None:
    encoder = {"class_path": "patch", "init_args": {"factors": 8}}
    with pytest.raises(UserError, match=r"encoder.factors must be Sequence, not '8'"):
        parse_tree(parser, described(encoder=encoder))


def test_a_bundle_holds_what_follows(tmp_path: Path) -> None:
    config = described()["tokenizer"]
    vltok.save_tokenizer(vltok.build(config), tmp_path / "bundle")
    loaded = vltok.load_tokenizer(tmp_path / "bundle")
    assert loaded.config["init_args"]["decoder"]["init_args"]["factor"] == 4
