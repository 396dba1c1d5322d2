"""The types of arguments, as recipes need them."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from vltok.registry import kind_of


def types_of(parser: ArgumentParser) -> dict[str, Any]:
    """The type of each argument of a parser, by key."""
    return {action.dest: action._typehint for action in parser._actions if hasattr(action, "_typehint")}


@functools.cache
def parameters_of(component: Callable | None) -> Mapping[str, Any]:
    """The type of each argument of a class or function, by name; none where its signature cannot be read."""
    if component is None:
        return {}
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(component) else parser.add_function_arguments
    try:
        add(component, "component", fail_untyped=False)
    except Exception:  # the parser that reads the recipe says why
        return {}
    return {key.partition(".")[2]: each for key, each in types_of(parser).items()}


def kind_among(hints: Iterable[Any]) -> str | None:
    """The kind of component that one of some types is; None where none is one."""
    return next(filter(None, map(kind_of, filter(is_component, hints))), None)


def is_component(hint: Any) -> bool:
    """Whether a type is a class of parts, and not one of values."""
    return inspect.isclass(hint) and hint.__module__ not in ("builtins", "pathlib", "datetime", "typing")


def members(hint: Any) -> Iterator[Any]:
    """The types of a union; any other type alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for each in typing.get_args(hint):
            yield from members(each)
    else:
        yield hint


def items_of(container: Any, key: str) -> Sequence[Any]:
    """The types that the item of a container takes, by its key or number."""
    origin, items = typing.get_origin(container), typing.get_args(container)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return items[-1:]
    return items[int(key) :][:1] if origin is tuple and Ellipsis not in items and key.isdecimal() else items
