"""Recipes: YAML files whose `class_path` values may be registered names, read with jsonargparse.

The line between the two: this module turns names into dotted paths and back, builds parsers, and says in one line what
is wrong with a recipe; what a recipe may hold is said by the signatures of the classes alone.
"""

import json
import pydoc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader, set_dumper, set_loader

from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.recipe_errors import explain
from vltok.io.recipe_files import BASE, with_bases
from vltok.registry import KINDS, Component, components, path_of, resolve_names

#: jsonargparse's name for files in which components are written by their registered names.
MODE = "vltok"


def read(path: str | Path) -> dict:
    """The content of a recipe, with registered names replaced by dotted paths. Imports none of its classes.

    Raises:
        UserError: No such file, not YAML, not a mapping, or a name that is not registered.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"recipe '{path}' cannot be read: {reason}") from error
    try:
        tree = _load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = str(getattr(error, "problem", None) or error)
        hint = "; indent with spaces, not tabs" if "'\\t'" in problem else ""
        raise UserError(f"recipe '{path}' is not YAML: {where}{problem}{hint}") from error
    if not isinstance(tree, dict):
        raise UserError(f"recipe '{path}' must hold keys and values, such as 'model: …', not {type(tree).__name__}")
    return tree


def translate_arguments(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with registered names replaced by dotted paths, and each recipe after its bases.

    An option whose last part is a kind of component takes a name: ``--data folder``,
    ``--model.tokenizer.gate=entropy``, ``--model.tokenizer.encoder.class_path timm``.

    Raises:
        UserError: A name that is not registered, or a recipe that cannot be read.
    """
    translated: list[str] = []
    option = None
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            translated += [f"{option}={each}" for each in _translate(option, value)] if equals else [option]
            option = None if equals else option
        elif option is not None:
            first, *others = _translate(option, argument)
            translated += [first, *(f"{option}={other}" for other in others)]
            option = None
        else:
            translated.append(argument)
    return translated


def with_names(tree: Any, kind: str | None = None) -> Any:
    """The opposite of `resolve_names`: dotted paths of registered components replaced by their names."""
    if isinstance(tree, Mapping):
        return {
            key: with_names(value, key if key in KINDS else kind if key == "class_path" else None)
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [with_names(item) for item in tree]
    if isinstance(tree, str) and kind is not None:
        return _name_of(tree, kind) or tree
    return tree


def recipe_parser(prog: str, description: str | None = None) -> ArgumentParser:
    """An empty parser that reads recipes, and whose dumps write registered names."""
    set_loader(MODE, _load, (yaml.YAMLError,))
    set_dumper(MODE, dump)
    return ArgumentParser(prog=prog, description=description, parser_mode=MODE, exit_on_error=False)


def dump(tree: Mapping) -> str:
    """The YAML text of a recipe, with registered names."""
    return yaml.safe_dump(_integer_keys(with_names(tree)), sort_keys=False, allow_unicode=True, width=120)


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse command-line arguments, recipes and registered names among them.

    Raises:
        UserError: Anything that is wrong with them, in one line.
    """
    translated = translate_arguments(arguments)
    return _explained(parser, lambda: parser.parse_args(translated))


def parse_layers(parser: ArgumentParser, layers: Sequence[Path | Mapping[str, Any]]) -> Namespace:
    """Parse recipes, each laid over those before it.

    Args:
        parser: One with the option `--config`.
        layers: Files, or what such files hold.

    Raises:
        UserError: Anything that is wrong with them, in one line.
    """
    here = Path()
    arguments: list[str] = []
    for layer in layers:
        if isinstance(layer, Mapping):
            bases = with_bases(here, lambda path, layer=layer: layer if path == here else read(path))[:-1]
            arguments += [*map(str, bases), _written(layer)]
        else:
            arguments += map(str, with_bases(layer, read))
    return _explained(parser, lambda: parser.parse_args([f"--config={argument}" for argument in arguments]))


def parse_options(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse the command line of a verb that reads no recipe.

    Raises:
        ArgumentError: Anything that is wrong with it, in one line.
    """
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        raise ArgumentError(None, explain(str(error), parser)) from error


def parse_tree(parser: ArgumentParser, tree: Mapping) -> Namespace:
    """Parse what a recipe holds.

    Raises:
        UserError: Anything that is wrong with it, in one line.
    """
    resolved = resolve_names(_string_keys(tree))
    return _explained(parser, lambda: parser.parse_object(resolved))


def instantiate(parser: ArgumentParser, config: Namespace) -> Namespace:
    """Build what a parsed recipe describes.

    Raises:
        UserError: A constructor refused what it was given.
    """
    failures: list[tuple[type, Exception]] = []

    def build(component: type, *args: Any, **kwargs: Any) -> Any:
        try:
            return component(*args, **kwargs)
        except Exception as error:
            failures.append((component, error))
            raise

    try:
        return parser.instantiate(config, instantiators=[(build, object, True)])
    except Exception as error:
        # jsonargparse wraps what a constructor raises into its own report of the whole recipe
        if not failures:
            raise
        component, cause = failures[0]
        if isinstance(cause, UserError):
            raise cause from error
        raise UserError(f"{component.__qualname__} cannot be built: {type(cause).__name__}: {cause}") from error


def _written(tree: Mapping[str, Any]) -> str:
    """A recipe as the text of a file.

    Raises:
        UserError: It holds what no file can.
    """
    try:
        return dump(tree)
    except yaml.representer.RepresenterError as error:
        raise UserError(
            f"a recipe holds numbers, texts, lists and mappings alone, but here stands a {type(error.args[1]).__name__}"
        ) from error


def _load(text: str) -> Any:
    # jsonargparse hands nested overrides on as Python literals, of which None alone is no YAML
    return None if text.strip() == "None" else resolve_names(_string_keys(yaml_text.load(text, get_loader("yaml"))))


def _string_keys(tree: Any) -> Any:
    """Keys as jsonargparse wants them; it makes them integers again where the signature says so."""
    if isinstance(tree, dict):
        return {str(key): _string_keys(value) for key, value in tree.items()}
    return [_string_keys(item) for item in tree] if isinstance(tree, list) else tree


def _integer_keys(tree: Any) -> Any:
    """Keys as people write them."""
    if isinstance(tree, dict):
        return {int(key) if str(key).isdigit() else key: _integer_keys(value) for key, value in tree.items()}
    return [_integer_keys(item) for item in tree] if isinstance(tree, list) else tree


def _translate(option: str, value: str) -> list[str]:
    """The value of an option, with names replaced by dotted paths; before a recipe stand its bases."""
    keys = option.lstrip("-").split(".")
    if keys == ["config"]:
        return [str(path) for path in with_bases(Path(value), read)]
    if keys == [BASE]:
        raise UserError(f"{BASE} is a key of recipes, not an option: give --config twice, the base first")
    key = keys[-2] if keys[-1] == "class_path" and len(keys) > 1 else keys[-1]
    if key not in KINDS or not value or value in ("null", "None"):
        return [value]
    if value.startswith("{"):
        return [json.dumps(resolve_names(_string_keys(yaml_text.load(value, get_loader("yaml"))), key))]
    return [value if any(mark in value for mark in "./") else path_of(key, value)]


def _name_of(class_path: str, kind: str) -> str | None:
    """The name under which a class is registered, where there is exactly one that means it."""
    every = components(kind)
    ending = class_path.rpartition(".")[2]
    for component in every:
        # a package may re-export a class, so that its dotted path is not the registered one
        same = component.class_path == class_path or (
            component.class_path.endswith(f".{ending}") and _is(component, class_path)
        )
        if same and sum(other.name == component.name for other in every) == 1:
            return component.name
    return None


def _is(component: Component, class_path: str) -> bool:
    """Whether a component's class is the one of a dotted path; one that does not load is none."""
    try:
        return pydoc.locate(class_path) is component.load()
    except UserError:
        return False


def _explained(parser: ArgumentParser, action: Callable[[], Namespace]) -> Namespace:
    try:
        return action()
    except ArgumentError as error:
        raise UserError(explain(str(error), parser)) from error
