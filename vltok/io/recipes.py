"""Recipes: YAML files whose `class_path` values may be registered names, read with jsonargparse.

The line between the two: this module turns names into dotted paths and back, builds parsers, and says in one line what
is wrong with a recipe; what a recipe may hold is said by the signatures of the classes alone.
"""

import functools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_dumper, set_loader

from vltok.arguments import keep_arguments
from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.recipe_errors import explain, must_be, place_of
from vltok.io.recipe_files import BASE, with_bases
from vltok.io.recipe_names import Place, RecipeNames, types_of
from vltok.io.spelling import check_spelling
from vltok.paths import read_path

#: jsonargparse's name for files in which components are written by their registered names.
MODE = "vltok"
#: Gives what follows from what a recipe says, besides what parts must agree on (`vltok.links`).
Following = Callable[[RecipeNames], Iterable[tuple[Place, Any]]]
_CONFIG = "--config"
#: What YAML may take a text for.
_PLAIN = (bool, int, float, NoneType, dict, list)
#: What the texts that are being parsed mean, recipes and those that mean themselves: jsonargparse, which would read
#: each as YAML, does not say where a text stands.
_MEANINGS: ContextVar[Mapping[str, dict | str]] = ContextVar("meanings", default=MappingProxyType({}))


def read(path: str | Path) -> dict:
    """The content of a recipe. Imports none of its classes.

    Raises:
        UserError: No such file, not YAML, or not a mapping.
    """
    try:
        tree = _string_keys(yaml_text.load(_text(path)))
    except yaml.YAMLError as error:
        raise UserError(f"recipe '{path}' is not YAML: {yaml_text.problem_of(error)}") from error
    if not isinstance(tree, dict):
        raise UserError(f"recipe '{path}' must hold keys and values, such as 'model: …', not {type(tree).__name__}")
    return tree


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
        written = _with_texts(yaml_text.load(super().dump(cfg, **kwargs)), cfg.as_dict())
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
    return yaml_text.dump(_integer_keys(tree))


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
        return _parsed(parser, arguments)
    except UserError as error:
        raise ArgumentError(None, str(error)) from error


def parse_tree(parser: ArgumentParser, tree: Mapping) -> Namespace:
    """Parse what a recipe holds.

    Raises:
        UserError: Anything that is wrong with it, in one line.
    """
    names = RecipeNames(types_of(parser))
    resolved = names.completed(names.resolved(_string_keys(tree)))
    _check_numbers(parser, names)
    config = parse_resolved(parser, resolved, names.texts)
    _restore_texts(parser, names, config)
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
    return _explained(parser, lambda: parser.parse_object(_string_keys(tree)), {text: text for text in texts})


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


def _parsed(parser: ArgumentParser, arguments: Sequence[str], following: Following | None = None) -> Namespace:
    """What arguments say; a recipe among them is a path, or what a file would hold."""
    names = RecipeNames(types_of(parser))
    meanings: dict[str, Any] = {}
    translated: list[str] = []
    nulls = _CONFIG in parser._option_string_actions
    option = None
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            if not equals:
                translated.append(option)
                continue
            translated += [f"{now}={_value(names, now, value, meanings, nulls)}" for now in _options(names, option)]
        elif option is None:
            translated.append(argument)
        elif (now := _options(names, option)) == [option]:
            translated.append(_value(names, option, argument, meanings, nulls))
        else:
            translated[-1:] = [f"{each}={_value(names, each, argument, meanings, nulls)}" for each in now]
        option = None
    missing: UserError | None = None
    try:
        found = [*names.linked(), *(following(names) if following else ())]
        translated += [f"--{'.'.join(place)}={json.dumps(value)}" for place, value in found]
    except UserError as error:
        missing = error  # --help and --print_config do without
    _check_numbers(parser, names)
    meanings = {text: text for text in names.texts} | meanings
    try:
        config = _explained(parser, lambda: parser.parse_args(translated), meanings)
    except UserError as error:
        raise missing or error from error
    if missing is not None:
        raise missing
    _restore_texts(parser, names, config)
    names.require_agreement()
    return config


def _check_numbers(parser: ArgumentParser, names: RecipeNames) -> None:
    """See that numbers and truth values are such: jsonargparse, which reads them by YAML 1.1's rule, takes 1:30 for 90.

    Raises:
        UserError: One is not.
    """
    for place, text, types in names.texts_given():
        if types and {int, float, bool, NoneType}.issuperset(types) and _is_text(text):
            raise UserError(must_be(place_of(".".join(place), parser), types, repr(text)))


def _restore_texts(parser: ArgumentParser, names: RecipeNames, config: Namespace) -> None:
    """Put back the texts of which jsonargparse has made something else, where others are taken, too.

    Raises:
        UserError: None is taken.
    """
    for place, text, types in names.texts_given():
        holder, key = _holder(config, place)
        if key is None or not isinstance(holder[key], _PLAIN):
            continue
        if not types or not {str, Any, object}.isdisjoint(types):
            holder[key] = text
        elif isinstance(holder[key], bool | int | float) and _is_text(text):
            raise UserError(must_be(place_of(".".join(place), parser), types, repr(text)))


def _with_texts(written: Any, config: Any) -> Any:
    """What was written of a configuration, with its texts as they are."""
    if isinstance(written, dict) and isinstance(config, dict):
        own = {str(key): value for key, value in config.items()}
        return {key: _with_texts(value, own.get(str(key))) for key, value in written.items()}
    if isinstance(written, list) and isinstance(config, list):
        return [_with_texts(*pair) for pair in zip(written, config, strict=True)]
    return config if isinstance(config, str) and isinstance(written, _PLAIN) else written


def _is_text(text: str) -> bool:
    """Whether YAML takes no number, truth value or null for it; nor Python, whose `None` may be meant."""
    try:
        return isinstance(yaml_text.load(text), str) and text != "None"
    except yaml.YAMLError:
        return True


def _holder(config: Any, place: Place) -> tuple[Any, Any]:
    """What holds the value at a place, and by which key; None for the key where nothing holds it."""
    holder, key = None, None
    for part in place:
        holder = config
        if isinstance(holder, Namespace) and "init_args" in holder and part not in holder:
            holder = holder["init_args"]
        if isinstance(holder, list):
            keys: Iterable[Any] = range(len(holder))
        else:
            keys = vars(holder) if isinstance(holder, Namespace) else holder if isinstance(holder, Mapping) else ()
        key = next((each for each in keys if str(each) == part), None)
        if key is None:
            return None, None
        config = holder[key]
    return holder, key


def _load(text: str) -> Any:
    text = text.removeprefix("\ufeff")  # of files that Windows' Notepad has written
    if text in (meanings := _MEANINGS.get()):
        return meanings[text]
    # jsonargparse hands nested overrides on as Python literals, of which None alone is no YAML
    return None if text.strip() == "None" else _string_keys(yaml_text.load(text))


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"recipe '{path}' cannot be read: {reason}") from error


def _value(names: RecipeNames, option: str, value: str, meanings: dict[str, dict | str], nulls: bool) -> str:
    """The value of an option, with names replaced by dotted paths; a recipe's content is put into `meanings`."""
    key = option.removeprefix("--")
    key = key if names.takes((key,)) else key.replace("-", "_")
    if option == _CONFIG:
        text = value if "\n" in value else _text(value)
        meanings[text] = names.resolved(yaml_text.load_as_written(text))
    elif names.takes_text_alone(key):
        names.option(key, value, nulls)
    elif value.startswith(("{", "[")):
        try:
            return json.dumps(names.resolved({key: yaml_text.load_as_written(value)})[key])
        except yaml.YAMLError as error:
            if not names.takes_text(key):  # which may begin so
                raise UserError(f"{key}: '{value}' is not YAML: {yaml_text.problem_of(error)}") from error
    else:
        return names.option(key, value, nulls)
    return value


def _options(names: RecipeNames, option: str) -> list[str]:
    """The options that say by now what an option says."""
    return [f"--{key}" for key in names.moved(option.removeprefix("--"))]


def _string_keys(tree: Any) -> Any:
    """Keys as jsonargparse wants them; it makes them integers again where the signature says so."""
    if isinstance(tree, dict):
        return {str(key): _string_keys(value) for key, value in tree.items()}
    return [_string_keys(item) for item in tree] if isinstance(tree, list) else tree


def _integer_keys(tree: Any) -> Any:
    """Keys as people write them."""
    if isinstance(tree, dict):
        whole = {key: str(key).isdecimal() and str(int(key)) == str(key) for key in tree}
        return {int(key) if whole[key] else key: _integer_keys(value) for key, value in tree.items()}
    return [_integer_keys(item) for item in tree] if isinstance(tree, list) else tree


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
