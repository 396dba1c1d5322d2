"""`vltok.build`: the object that a recipe describes."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from jsonargparse import Namespace

from vltok.errors import UserError, unknown
from vltok.io.recipes import instantiate, parse_tree, recipe_parser
from vltok.registry import components, find, interface_of, kinds
from vltok.verbs.training_recipe import TrainingRecipe


def build(
    recipe: str | PathLike | Mapping[str, Any],
    part: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Any:
    """Build what a recipe describes.

    ```
    vltok.build("quickstart").model.tokenizer                    # of a recipe that comes with vltok, or of a file
    vltok.build("imagenet_dq", "model.tokenizer")                # one part: no data set is asked for
    vltok.build("quickstart", overrides={"model.tokenizer.quantizer.size": 64})
    vltok.build({"class_path": "patch", "init_args": {"factors": [4, 8], "width": 32}})
    ```

    Args:
        recipe: The path of a recipe, the name of one that comes with vltok, what such a file holds, or one component:
            its `class_path`, a registered name or a dotted path, and `init_args`.
        part: Which component of a recipe to build, as options name it; the whole by default.
        overrides: What is laid over the recipe of a training: keys with dots, as options have them, or nested.

    Returns:
        The component; of the recipe of a training without `part` a `vltok.verbs.training_recipe.Training`.

    Raises:
        UserError: There is no such recipe or part, or something in it is wrong.
    """
    if isinstance(recipe, Mapping) and "class_path" in recipe:
        if part or overrides:
            raise UserError("part and overrides are for the recipe of a training: change init_args instead")
        return _component(recipe)
    training = TrainingRecipe.of(recipe, overrides)
    return training.build() if part is None else _built(_part(training.config, part))


def _component(tree: Mapping[str, Any]) -> Any:
    name = str(tree["class_path"])
    if "." not in name:
        found = [kind for kind in kinds() if any(each.name == name for each in components(kind))]
        if not found:
            raise unknown("component", name, sorted({each.name for kind in kinds() for each in components(kind)}))
        if len(found) > 1:
            paths = " or ".join(find(kind, name).class_path for kind in found)
            raise UserError(f"'{name}' is the name of a {' and of a '.join(found)}: write {paths}")
        tree = {**tree, "class_path": find(found[0], name).class_path}
    return _built(tree)


def _part(config: Namespace, keys: str) -> Namespace:
    """The component at some keys, as options name them: without `init_args`.

    Raises:
        UserError: There is none.
    """
    found: Any = config
    place: list[str] = []
    for key in keys.split("."):
        inner = found.get("init_args", found)
        if key not in inner:
            raise unknown("part of the recipe", keys, [".".join([*place, each]) for each in _components(inner)])
        found = inner[key]
        place.append(key)
        if not _is_component(found):
            raise UserError(f"{'.'.join(place)} is no component, but {found!r}")
    return found


def _components(arguments: Namespace) -> list[str]:
    return [key for key, value in vars(arguments).items() if _is_component(value)]


def _is_component(value: object) -> bool:
    return isinstance(value, Namespace) and "class_path" in value


def _built(tree: Mapping[str, Any] | Namespace) -> Any:
    parser = recipe_parser("vltok build")
    parser.add_subclass_arguments(tuple(interface_of(kind) for kind in kinds()), "component", required=True)
    return instantiate(parser, parse_tree(parser, {"component": tree})).component
