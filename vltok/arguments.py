"""The arguments from which an object was built, by which it is written down and built again."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, TypeVar

from vltok.errors import UserError

#: The attribute of an object that keeps its arguments.
_KEPT = "_built_from"
_Made = TypeVar("_Made", bound="KeepsArguments")


class KeepsArguments:
    """Objects of these classes keep the arguments of their constructor, whatever the constructor does with them.

    Every component's interface is one of these; so may be any part that a component takes.
    """

    def __new__(cls: type[_Made], *args: Any, **kwargs: Any) -> _Made:
        made = super().__new__(cls)
        keep_arguments(made, args, kwargs)
        return made


class Configuration:
    """The attribute `config`: what an object was built from. A class or an object may have one of its own instead."""

    def __get__(self, made: object | None, owner: type) -> Any:
        return self if made is None else config_of(made)


def keep_arguments(made: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Let an object keep the arguments that its constructor was given, unless it does so already."""
    if isinstance(getattr(made, "__dict__", None), dict):
        kept = [_kept(value) for value in args], {name: _kept(value) for name, value in kwargs.items()}
        vars(made).setdefault(_KEPT, kept)


def fields_of(value: Any) -> dict[str, Any]:
    """The fields of a data class as they are written down: one that came later is left out at the value, told by its
    metadata as `unwritten`, that it has in everything that was written before."""
    fields = [each for each in dataclasses.fields(value) if each.init]
    late = {each.name: each.metadata["unwritten"] for each in fields if "unwritten" in each.metadata}
    found = {each.name: getattr(value, each.name) for each in fields}
    return {name: part for name, part in found.items() if name not in late or part != late[name]}


def config_of(made: object, key: str = "") -> dict[str, Any]:
    """What an object was built from: its `class_path` and `init_args`, as recipes have them, with every default.

    A part that an attribute of the argument's name holds by now counts instead of the one that was given.

    Args:
        made: The object.
        key: Where it stands, for the message.

    Raises:
        UserError: An argument, here or in a part, is something that no recipe can hold.
    """
    component = type(made)
    given = inspect.signature(component.__init__).bind(made, *vars(made)[_KEPT][0], **vars(made)[_KEPT][1])
    parameters = list(given.signature.parameters.values())[1:]
    found: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in given.arguments:
            value = given.arguments[parameter.name]
        elif parameter.default is parameter.empty or isinstance(value := _kept(parameter.default), _Unwritable):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= value
        elif parameter.kind is parameter.VAR_POSITIONAL:
            found[parameter.name] = list(value)
        else:
            found[parameter.name] = _current(made, parameter.name, value)
    arguments = {name: _written(value, f"{key}.{name}".lstrip(".")) for name, value in found.items()}
    return {"class_path": _path(component), "init_args": arguments}


@dataclasses.dataclass(frozen=True)
class _Unwritable:
    """Stands for an argument that cannot be written down; the argument itself may be one that cannot be copied."""

    type: str


def _kept(value: Any) -> Any:
    """A value as recipes have it. Of an object that keeps its arguments, they are asked for when they are needed."""
    import numpy as np  # where there are components there is torch, too; a verb's --help needs neither

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {_kept(key): _kept(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range | Set):
        return [_kept(inner) for inner in value]
    # a recipe writes the fields of a data class, and names no class
    if dataclasses.is_dataclass(value) and not isinstance(value, type | KeepsArguments):
        return {name: _kept(part) for name, part in fields_of(value).items()}
    if _keeps(value):
        return value
    if hasattr(value, "__qualname__") and "<" not in value.__qualname__:
        return _path(value)
    return _Unwritable(type(value).__qualname__)


def _keeps(value: object) -> bool:
    return _KEPT in getattr(value, "__dict__", ())


def _current(made: object, name: str, value: Any) -> Any:
    """The part of an object by now, where its attribute has the name of the argument that gave it."""
    parts = getattr(made, "_modules", {})  # of a module of torch, which nothing here imports
    now = parts.get(name, value)
    return now if _keeps(now) or (now is None and _keeps(value)) else value


def _written(value: Any, key: str) -> Any:
    if isinstance(value, _Unwritable):
        raise UserError(
            f"{key} is a {value.type}, which no configuration can hold: give numbers, texts, lists, or objects of "
            "classes that derive from vltok.arguments.KeepsArguments"
        )
    if isinstance(value, dict):
        return {name: _written(inner, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [_written(inner, f"{key}.{place}") for place, inner in enumerate(value)]
    return config_of(value, key) if _keeps(value) else value


def _path(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"
