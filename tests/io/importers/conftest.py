"""What the tests of importers share."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vltok.interfaces import Tokenizer
from vltok.io.recipes import instantiate, parse_tree, recipe_parser

KEYS = Path(__file__).parents[4] / "shared" / "parity" / "official_keys.json"


@pytest.fixture
def official() -> Callable[[str], tuple[dict, dict[str, torch.Tensor]]]:
    """The configuration of a full-size original model, and its state dict without values."""
    if not KEYS.is_file():
        pytest.skip(f"the original implementation's names are not at {KEYS}")

    def read(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
        model = json.loads(KEYS.read_text())[name]
        return model["config"], {key: torch.empty(shape, device="meta") for key, shape in model["keys"].items()}

    return read


@pytest.fixture
def build() -> Callable[[dict], Tokenizer]:
    """Build the tokenizer that a configuration describes."""

    def build(config: dict) -> Tokenizer:
        parser = recipe_parser("import")
        parser.add_subclass_arguments(Tokenizer, "tokenizer", required=True)
        return instantiate(parser, parse_tree(parser, {"tokenizer": config})).tokenizer

    return build
