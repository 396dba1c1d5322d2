"""Texts as they were written, which jsonargparse reads once more by YAML 1.1's rule, and numbers that are such."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.recipe_errors import must_be, place_of
from vltok.io.recipe_names import Place, RecipeNames

#: What YAML may take a text for.
_PLAIN = (bool, int, float, NoneType, dict, list)


def check_numbers(parser: ArgumentParser, names: RecipeNames) -> None:
    """See that numbers and truth values are such: jsonargparse, which reads them by YAML 1.1's rule, takes 1:30 for 90.

    Raises:
        UserError: One is not.
    """
    for place, text, types in names.texts_given():
        if types and {int, float, bool, NoneType}.issuperset(types) and _is_text(text):
            raise UserError(must_be(place_of(".".join(place), parser), types, repr(text)))


def refuse_nan(parser: ArgumentParser, found: Any, place: tuple[str, ...] = ()) -> None:
    """See that no number is NaN, which a check of a range lets pass.

    Raises:
        UserError: One is.
    """
    if isinstance(found, float) and math.isnan(found):
        raise UserError(f"{place_of('.'.join(place), parser)} is NaN, which is no number: give one")
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in inner:
        refuse_nan(parser, value, place if isinstance(found, list) or key == "init_args" else (*place, str(key)))


def restore_texts(parser: ArgumentParser, names: RecipeNames, config: Namespace) -> None:
    """Put back the texts of which jsonargparse has made something else, where others are taken, too.

    Raises:
        UserError: None is taken.
    """
    for place, text, types in names.texts_given():
        holder, key = _holder(config, place)
        if key is None or not isinstance(holder[key], _PLAIN):
            continue
        if isinstance(holder[key], list) and text in holder[key]:  # of an option that takes several
            continue
        if not types or not {str, Any, object}.isdisjoint(types):
            holder[key] = text
        elif isinstance(holder[key], bool | int | float) and _is_text(text):
            raise UserError(must_be(place_of(".".join(place), parser), types, repr(text)))


def with_texts(written: Any, config: Any) -> Any:
    """What was written of a configuration, with its texts as they are."""
    if isinstance(written, dict) and isinstance(config, dict):
        own = {str(key): value for key, value in config.items()}
        return {key: with_texts(value, own.get(str(key))) for key, value in written.items()}
    if isinstance(written, list) and isinstance(config, list):
        return [with_texts(*pair) for pair in zip(written, config, strict=True)]
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
