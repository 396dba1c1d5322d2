"""Recipes: YAML files whose `class_path` values may be registered names, read with jsonargparse.

The line between the two: this module turns names into dotted paths and back, builds parsers, and says in one line what
is wrong with a recipe; what a recipe may hold is said by the signatures of the classes alone.
"""

import functools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_dumper, set_loader

from vltok.arguments import keep_arguments
from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.argument_types import types_of
from vltok.io.recipe_errors import explain
from vltok.io.recipe_files import BASE, integer_keys, read, string_keys, text_of, with_bases
from vltok.io.recipe_names import Place, RecipeNames
from vltok.io.recipe_texts import check_numbers, refuse_nan, restore_texts, with_texts
from vltok.io.spelling import check_spelling
from vltok.paths import read_path

#: jsonargparse's name for files in which components are written by their registered names.
MODE = "vltok"
#: Gives what follows from what a recipe says, besides what parts must agree on (`vltok.links`).
Following = Callable[[RecipeNames], Iterable[tuple[Place, Any]]]
_CONFIG = "--config"
#: What the texts that are being parsed mean, recipes and those that mean themselves: jsonargparse, which would read
#: each as YAML, does not say where a text stands.
_MEANINGS: ContextVar[Mapping[str, dict | str]] = ContextVar("meanings", default=MappingProxyType({}))


def translate_arguments(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with each recipe after its bases.

    Raises:
        UserError: A recipe cannot be read, names a base that is not there, or misspells a component's name.
    """
    translated: list[str] = []
    for argument, before in zip(arguments, ["", *arguments], strict=False):
        option, equals, value = argument.partition("=")
        if option == f"--{BASE}":
            raise UserError(f"{BASE} is a key of recipes, not an option: give --config twice, the base first")
        if option == _CONFIG and equals:
            translated += [f"{_CONFIG}={path}" for path in with_bases(read_path(value), _read_spelt)]
        elif before == _CONFIG:
            first, *others = with_bases(read_path(argument), _read_spelt)
            translated += [str(first), *(f"{_CONFIG}={other}" for other in others)]
        else:
            translated.append(argument)
    return translated


def _read_spelt(path: Path) -> dict:
    tree = read(path)
    check_spelling(tree)
    return tree


class RecipeParser(ArgumentParser):
    """A parser that reads recipes, and whose dumps write registered names, each where its type lets it be read back."""

    def dump(self, cfg: Namespace, **kwargs: Any) -> str:
        # jsonargparse reads texts once more while it writes them
        written = with_texts(yaml_text.load(super().dump(cfg, **kwargs)), cfg.as_dict())
        return dump(with_names(written, types_of(self)))


def recipe_parser(prog: str, description: str | None = None, kind: type[RecipeParser] = RecipeParser) -> ArgumentParser:
    """An empty parser that reads recipes, and whose dumps write registered names."""
    set_loader(MODE, _load, (yaml.YAMLError,))
    set_dumper(MODE, dump)
    return kind(prog=prog, description=description, parser_mode=MODE, exit_on_error=False, allow_abbrev=False)


def with_names(tree: Mapping[Any, Any], types: Mapping[str, Any]) -> dict[Any, Any]:
    """A recipe with registered names in place of dotted paths.

    Args:
        tree: What it holds.
        types: The type of each value at its top, by key.
    """
    names = RecipeNames(types)
    return names.named(names.resolved(tree))


def dump(tree: Mapping) -> str:
    """The YAML text of a recipe."""
    return yaml_text.dump(integer_keys(tree))


def parse(parser: ArgumentParser, arguments: Sequence[str], following: Following | None = None) -> Namespace:
    """Parse command-line arguments, recipes and registered names among them.

    A name means a component of the kind that the parameter's type says: ``--data folder``,
    ``--model.tokenizer.gate=entropy``, ``--model.tokenizer.encoder.class_path timm``.

    Args:
        parser: Whose arguments they are.
        arguments: What is given.
        following: What follows from it.

    Raises:
        UserError: Anything that is wrong with them, in one line.
    """
    return _parsed(parser, translate_arguments(arguments), following)


def parse_layers(
    parser: ArgumentParser, layers: Sequence[Path | Mapping[str, Any]], following: Following | None = None
) -> Namespace:
    """Parse recipes, each laid over those before it.

    Args:
        parser: One with the option `--config`.
        layers: Files, or what such files hold.
        following: What follows from them.

    Raises:
        UserError: Anything that is wrong with them, in one line.
    """
    here = Path()
    arguments: list[str] = []
    for layer in layers:
        if isinstance(layer, Mapping):
            bases = with_bases(here, functools.partial(_content, layer))[:-1]
            arguments += [*map(str, bases), _written(layer)]
        else:
            arguments += map(str, with_bases(layer, read))
    return _parsed(parser, [f"{_CONFIG}={argument}" for argument in arguments], following)


def parse_options(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse the command line of a verb that reads no recipe.

    Raises:
        ArgumentError: Anything that is wrong with it, in one line.
    """
    try:
        return _parsed(parser, arguments, recipes=False)
    except UserError as error:
        raise ArgumentError(None, str(error)) from error


def parse_tree(parser: ArgumentParser, tree: Mapping) -> Namespace:
    """Parse what a recipe holds.

    Raises:
        UserError: Anything that is wrong with it, in one line.
    """
    names = RecipeNames(types_of(parser))
    resolved = names.completed(names.resolved(string_keys(tree)))
    check_numbers(parser, names)
    config = parse_resolved(parser, resolved, names.texts)
    restore_texts(parser, names, config)
    refuse_nan(parser, config.as_dict())
    names.require_agreement()
    return config


def parse_resolved(parser: ArgumentParser, tree: Mapping, texts: Collection[str]) -> Namespace:
    """Parse what a recipe holds, whose names are dotted paths already and which leaves nothing out.

    Args:
        parser: Whose arguments it has.
        tree: What it holds.
        texts: Those in it that mean themselves.

    Raises:
        UserError: Anything that is wrong with it, in one line.
    """
    return _explained(parser, lambda: parser.parse_object(string_keys(tree)), {text: text for text in texts})


def instantiate(parser: ArgumentParser, config: Namespace) -> Namespace:
    """Build what a parsed recipe describes.

    Raises:
        UserError: A constructor refused what it was given.
    """
    failures: list[tuple[type, Exception]] = []

    def build(component: type, *args: Any, **kwargs: Any) -> Any:
        try:
            built = component(*args, **kwargs)
        except Exception as error:
            failures.append((component, error))
            raise
        keep_arguments(built, args, kwargs)  # of a part of any class
        return built

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


def _content(layer: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """What is laid over others, which stands in no file, or what a file holds."""
    return layer if path == Path() else read(path)


def _written(tree: Mapping[str, Any]) -> str:
    """A recipe as the text of a file."""
    try:
        return dump(tree)
    except yaml.representer.RepresenterError as error:
        raise UserError(
            f"a recipe holds numbers, texts, lists and mappings alone, but here stands a {type(error.args[1]).__name__}"
        ) from error


def _parsed(
    parser: ArgumentParser, arguments: Sequence[str], following: Following | None = None, recipes: bool = True
) -> Namespace:
    """What arguments say; a recipe among them is a path, or what a file would hold."""
    recipes = recipes and _CONFIG in parser._option_string_actions
    names = RecipeNames(types_of(parser))
    meanings: dict[str, Any] = {}
    translated: list[str] = []
    option = None
    for argument in _named_first(arguments):
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            if not equals:
                translated.append(option)
                continue
            translated += [f"{now}={_value(names, now, value, meanings, recipes)}" for now in _options(names, option)]
        elif option is None:
            translated.append(argument)
        elif (now := _options(names, option)) == [option]:
            translated.append(_value(names, option, argument, meanings, recipes))
        else:
            translated[-1:] = [f"{each}={_value(names, each, argument, meanings, recipes)}" for each in now]
        option = None
    missing: UserError | None = None
    try:
        found = [*names.linked(), *(following(names) if following else ())]
        translated += [f"--{'.'.join(place)}={json.dumps(value)}" for place, value in found]
    except UserError as error:
        missing = error  # --help and --print_config do without
    check_numbers(parser, names)
    meanings = {text: text for text in names.texts} | meanings
    try:
        config = _explained(parser, lambda: parser.parse_args(translated), meanings)
    except UserError as error:
        raise missing or error from error
    if missing is not None:
        raise missing
    restore_texts(parser, names, config)
    refuse_nan(parser, config.as_dict())
    names.require_agreement()
    return config


def _named_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with what names a component (`--data folder`) before its own options, but after recipes."""
    ordered = list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, _ = argument.partition("=")
        options = [each.partition("=")[0] for each in ordered]
        first = next((at for at, each in enumerate(options) if each.startswith(f"{option}.")), place)
        named = option in options[:place] or _CONFIG in options[first:place]
        if option.startswith("--") and first < place and not named:
            end = place + (1 if equals else 2)
            ordered[first:end] = [*ordered[place:end], *ordered[first:place]]
    return ordered


def _load(text: str) -> Any:
    text = text.removeprefix("\ufeff")  # of files that Windows' Notepad has written
    if text in (meanings := _MEANINGS.get()):
        return meanings[text]
    # jsonargparse hands nested overrides on as Python literals, of which None alone is no YAML
    return None if text.strip() == "None" else string_keys(yaml_text.load(text))


def _value(names: RecipeNames, option: str, value: str, meanings: dict[str, dict | str], recipes: bool) -> str:
    """The value of an option, with names replaced by dotted paths; a recipe's content is put into `meanings`."""
    key = option.removeprefix("--")
    key = key if names.takes((key,)) else key.replace("-", "_")
    if option == _CONFIG and recipes:
        text = value if "\n" in value else text_of(value)
        meanings[text] = names.resolved(yaml_text.load_as_written(text))
    elif names.takes_text_alone(key):
        names.option(key, value, recipes)
    elif value.startswith(("{", "[")):
        try:
            return json.dumps(names.resolved({key: yaml_text.load_as_written(value)})[key])
        except yaml.YAMLError as error:
            if not names.takes_text(key):  # which may begin so
                raise UserError(f"{key}: '{value}' is not YAML: {yaml_text.problem_of(error)}") from error
    else:
        return names.option(key, value, recipes)
    return value


def _options(names: RecipeNames, option: str) -> list[str]:
    """The options that say by now what an option says."""
    return [f"--{key}" for key in names.moved(option.removeprefix("--"))]


def _explained(
    parser: ArgumentParser, action: Callable[[], Namespace], meanings: Mapping[str, dict | str]
) -> Namespace:
    token = _MEANINGS.set(meanings)
    try:
        return action()
    except ArgumentError as error:
        raise UserError(explain(str(error), parser)) from error
    finally:
        _MEANINGS.reset(token)
