"""Where recipes lie, what they hold, and the recipe that another one names as its base.

```yaml
# DQ-VAE on FFHQ: all of imagenet_dq.yaml, but for these keys
base: imagenet_dq.yaml
data.shards: ffhq-train-{000000..000069}.tar
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vltok.errors import UserError, unknown
from vltok.io import yaml_text
from vltok.paths import read_path

#: The key that names the recipe which the others change.
BASE = "base"


def recipes_folder() -> Path:
    """The folder of the recipes that come with vltok: inside the package, or beside it where it is a clone."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with vltok: their names, and the line that each opens with."""
    files = sorted(recipes_folder().glob("*.yaml"))
    return {path.stem: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for path in files}


def recipe_text(name: str) -> str:
    """The text of a recipe that comes with vltok, by its name, with or without ``.yaml``.

    Raises:
        UserError: There is no such recipe.
    """
    stem = name.removesuffix(".yaml")
    if stem not in shipped_recipes():
        raise unknown("recipe", stem, shipped_recipes())
    return (recipes_folder() / f"{stem}.yaml").read_text(encoding="utf-8")


def find_recipe(place: str | os.PathLike) -> Path:
    """The file of a recipe: its path, or the name of one that comes with vltok.

    Raises:
        UserError: There is neither.
    """
    path = read_path(place)
    if not path.exists() and path.parent == Path():
        if path.stem not in shipped_recipes():
            raise unknown("recipe", place, shipped_recipes())
        return recipes_folder() / f"{path.stem}.yaml"
    return path


def read(path: str | Path) -> dict:
    """The content of a recipe. Imports none of its classes.

    Raises:
        UserError: No such file, not YAML, or not a mapping.
    """
    try:
        tree = string_keys(yaml_text.load(text_of(path)))
    except yaml.YAMLError as error:
        raise UserError(f"recipe '{path}' is not YAML: {yaml_text.problem_of(error)}") from error
    if not isinstance(tree, dict):
        raise UserError(f"recipe '{path}' must hold keys and values, such as 'model: …', not {type(tree).__name__}")
    return tree


def text_of(path: str | Path) -> str:
    """The text of a recipe.

    Raises:
        UserError: No such file, or no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"recipe '{path}' cannot be read: {reason}") from error


def string_keys(tree: Any) -> Any:
    """Keys as jsonargparse wants them; it makes them integers again where the signature says so."""
    if isinstance(tree, dict):
        return {str(key): string_keys(value) for key, value in tree.items()}
    return [string_keys(item) for item in tree] if isinstance(tree, list) else tree


def integer_keys(tree: Any) -> Any:
    """Keys as people write them."""
    if isinstance(tree, dict):
        whole = {key: str(key).isdecimal() and str(int(key)) == str(key) for key in tree}
        return {int(key) if whole[key] else key: integer_keys(value) for key, value in tree.items()}
    return [integer_keys(item) for item in tree] if isinstance(tree, list) else tree


def with_bases(path: Path, read: Callable[[Path], Mapping[str, Any]]) -> list[Path]:
    """A recipe's file after that of its base, its base's base, and so on: each changes what stands before it.

    A base is looked for beside the recipe that names it, then among those that come with vltok.

    Args:
        path: The recipe.
        read: Gives the content of a file, or raises a `UserError`.

    Raises:
        UserError: A file cannot be read, a base is not found, or a recipe is its own base.
    """
    chain = [path]
    while (base := read(chain[0]).get(BASE)) is not None:
        if not isinstance(base, str) or not base:
            raise UserError(f"{BASE} of recipe '{chain[0]}' must be the path of a recipe, not {base!r}")
        places = [chain[0].parent / base, recipes_folder() / base]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(
                f"recipe '{chain[0]}' changes '{base}', which is neither beside it nor among the recipes of vltok "
                "('vltok recipes' lists them)"
            )
        if any(found.samefile(earlier) for earlier in chain):
            raise UserError(f"recipe '{found}' is its own {BASE}: {' ← '.join(map(str, [found, *chain]))}")
        chain.insert(0, found)
    return chain
