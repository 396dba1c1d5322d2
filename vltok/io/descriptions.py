"""What the model of a bundle is built from, and what may be imported for it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vltok.arguments import config_of, fields_of
from vltok.errors import UserError
from vltok.interfaces import Prior, RatioTargeted, Standalone, Tokenizer
from vltok.io.bundle_files import Kind
from vltok.io.migrations import migrated
from vltok.io.recipe_names import RecipeNames
from vltok.io.recipes import instantiate, parse_resolved, recipe_parser
from vltok.io.trust import check, only_imports
from vltok.registry import interface_of, registered, registrations


@dataclass(frozen=True)
class Description:
    """What a model is built from.

    Attributes:
        kind: What it is.
        names: What stands where in it.
        tree: What it is built from, under its kind, with dotted paths for names.
        classes: Those that may be imported for it; any where None.
    """

    kind: Kind
    names: RecipeNames
    tree: dict[str, Any]
    classes: set[type] | None = None

    @classmethod
    def of(cls, model: nn.Module, kind: Kind) -> Description:
        """What a bundle will say of a model.

        Raises:
            UserError: It was built from something that no configuration can hold, or of classes that no other process
                can import.
        """
        config = config_of(model, kind)
        if isinstance(model, Standalone):
            config = {**config, "init_args": {**config["init_args"], **model.standalone_arguments}}
        names = RecipeNames({kind: interface_of(kind)})
        tree = names.resolved({kind: config})
        for key, path in _class_paths(tree):
            if path.startswith("__main__.") or "<locals>" in path:
                raise UserError(
                    f"{key} is {path}, which is written in a script, a notebook or a function, where nobody can import "
                    "it: put it into a module, such as one of 'vltok new'"
                )
        return cls(kind, names, _without_downloads(tree))

    @classmethod
    def read(cls, content: Mapping[str, Any], trust: bool) -> Description:
        """What a bundle's configuration says; a name that was taken since means what it meant when it was written.

        Raises:
            UserError: It names what is not registered, or what needs `trust`.
        """
        kind = content["kind"]
        distributions = [required["distribution"] for required in content["requires"]]
        names = RecipeNames({kind: interface_of(kind)}, distributions, None if trust else registered)
        tree = names.resolved({kind: migrated(content)[kind]})
        return cls(kind, names, tree, None if trust else check(tree))

    @property
    def named(self) -> dict[str, Any]:
        """What it is built from, by registered names."""
        return self.names.named(self.tree)[self.kind]

    def build(self) -> Tokenizer | Prior:
        """The model, with any weights.

        Raises:
            UserError: It cannot be built.
        """
        parser = recipe_parser(f"the configuration of the {self.kind}")
        parser.add_subclass_arguments(interface_of(self.kind), self.kind, required=True)
        # the weights drawn here are overwritten; the caller's draws stay the same
        with only_imports(self.classes), torch.random.fork_rng(devices=[]):
            return instantiate(parser, parse_resolved(parser, self.tree, self.names.texts))[self.kind]

    def distributions(self) -> list[dict[str, str]]:
        """The distributions that hold its classes, with their versions."""
        found: dict[str, str] = {}
        for each in self.names.classes.values():
            component = next(registrations(each), None)
            if component is not None:
                found[component.distribution] = component.version
            else:
                # it reads the files of every distribution there is
                modules = importlib.metadata.packages_distributions()
                for distribution in modules.get(each.__module__.partition(".")[0], ())[:1]:
                    found[distribution] = importlib.metadata.version(distribution)
        return [{"distribution": name, "version": version} for name, version in sorted(found.items())]


def summary(model: Tokenizer | Prior) -> dict[str, Any]:
    """What a bundle tells of its model without being loaded: its size, its codes, and what it is asked to reach."""
    parameters = sum(each.numel() for each in model.parameters())
    told: dict[str, Any] = {"parameters": parameters, "codes": fields_of(model.spec)}
    if isinstance(model, Prior):
        return {**told, "classes": model.classes}
    target = model.target_ratios if isinstance(model, RatioTargeted) else None
    return told if target is None else {**told, "ratios": dict(zip(target.factors, target.shares, strict=True))}


def summary_of(content: Mapping[str, Any], trust: bool) -> dict[str, Any]:
    """The same of a bundle that does not tell it, whose configuration has been read; the model is built.

    Raises:
        UserError: As `load_tokenizer`, but for what is wrong with the weights.
    """
    return summary(Description.read(content, trust).build())


def _class_paths(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """What stands where in a tree of dotted paths."""
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if isinstance(tree, dict):
        if "class_path" in tree:
            yield key, tree["class_path"]
        for name, value in tree.items():
            yield from _class_paths(value, key if name == "init_args" else f"{key}.{name}".lstrip("."))


def _without_downloads(tree: Any) -> Any:
    """The tree with `pretrained: true` turned off: the bundle's own weights come in their place."""
    if isinstance(tree, dict):
        return {
            key: False if key == "pretrained" and value is True else _without_downloads(value)
            for key, value in tree.items()
        }
    return [_without_downloads(item) for item in tree] if isinstance(tree, list) else tree
