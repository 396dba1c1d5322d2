"""What every registered component must hold, whatever its kind: recipes name it, and bundles bring it back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import yaml

from vltok.interfaces import Prior, Tokenizer
from vltok.io.bundles import load_prior, load_tokenizer, save_prior, save_tokenizer
from vltok.io.inspection import inspect_component
from vltok.io.recipes import instantiate, parse_tree, recipe_parser
from vltok.registry import find, interface_of, kinds


class RecipeContract(ABC):
    """Tests of a registered component, which a test class inherits: its distribution must be installed.

    Attributes:
        kind: What it is: `tokenizer`, `prior`, `gate`, …
    """

    kind: str

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What a recipe says of a tiny one: `class_path` by its registered name, and `init_args`."""

    def test_its_name_is_registered(self):
        assert self.kind in kinds()
        assert issubclass(find(self.kind, self.recipe()["class_path"]).load(), interface_of(self.kind))

    def test_its_arguments_are_typed_and_described(self):
        entry = inspect_component(find(self.kind, self.recipe()["class_path"]))
        assert entry.error is None and entry.summary, "the class's docstring has no first line"
        untyped = [argument.name for argument in entry.arguments if argument.type == "any"]
        assert not untyped, f"arguments without a type: {', '.join(untyped)}"
        silent = [argument.name for argument in entry.arguments if not argument.description]
        assert not silent, f"arguments that the docstring does not explain: {', '.join(silent)}"

    def test_a_recipe_builds_it_and_names_it_again(self):
        text, built = self._parsed_and_built()
        assert isinstance(built, interface_of(self.kind))
        assert yaml.safe_load(text)[self.kind]["class_path"] == self.recipe()["class_path"]

    def _parsed_and_built(self) -> tuple[str, Any]:
        """The recipe as it is written again, and what it describes."""
        parser = recipe_parser("recipe")
        parser.add_subclass_arguments(interface_of(self.kind), self.kind, required=True)
        config = parse_tree(parser, {self.kind: self.recipe()})
        return parser.dump(config), instantiate(parser, config)[self.kind]


class BundleContract(RecipeContract):
    """The same of a tokenizer or a prior, whose bundles must bring it back."""

    def test_a_bundle_brings_it_back(self, tmp_path: Path):
        _, built = self._parsed_and_built()
        loaded: Tokenizer | Prior
        if isinstance(built, Tokenizer):
            save_tokenizer(built, tmp_path / "bundle")
            loaded = load_tokenizer(tmp_path / "bundle")
        else:
            save_prior(built, tmp_path / "bundle", tokenizer="0" * 64)
            loaded = load_prior(tmp_path / "bundle")
        assert type(loaded) is type(built) and not loaded.training
        state = loaded.state_dict()
        assert all(state[name].equal(value) for name, value in built.state_dict().items())
        requires = yaml.safe_load((tmp_path / "bundle" / "config.yaml").read_text(encoding="utf-8"))["requires"]
        component = find(self.kind, self.recipe()["class_path"])
        assert {"distribution": component.distribution, "version": component.version} in requires
