"""Values that JSON has read, checked against the types that they are to have: a file may hold anything."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

_LARGEST = 2**63 - 1
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def from_plain(kind: Any, value: Any, name: str) -> Any:
    """A plain value as one of a type.

    Args:
        kind: A data class, `tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`, `X | None`, `int`, `float`, `bool`, `str`,
            or `Any`.
        value: What JSON gave.
        name: What the value is called, for errors.

    Raises:
        ValueError: It is no such value; says which part.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):  # of a type and None
        return None if value is None else from_plain(parts[0], value, name)
    if dataclasses.is_dataclass(kind):
        return _data_class(kind, value, name)
    if origin is tuple:
        return _tuple(parts, value, name)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong(name, "an object", value)
        return {key: from_plain(parts[1], part, f"{name}.{key}") for key, part in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= _LARGEST and math.isfinite(value):
            return float(value)
    elif type(value) is kind and (kind is not int or abs(value) <= _LARGEST):
        return value
    raise _wrong(name, _NAMES[kind], value)


def _data_class(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            values[field.name] = from_plain(hints[field.name], value[field.name], f"{name}.{field.name}".lstrip("."))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{name}.{field.name}".lstrip(".") + " is missing")
    return kind(**values)


def _tuple(parts: tuple[Any, ...], value: Any, name: str) -> tuple:
    if not isinstance(value, list):
        raise _wrong(name, "a list", value)
    kinds = [parts[0]] * len(value) if parts[1:] == (Ellipsis,) else list(parts)
    if len(kinds) != len(value):
        raise _wrong(name, f"a list of {len(kinds)}", value)
    return tuple(
        from_plain(kind, part, f"{name}[{place}]") for place, (kind, part) in enumerate(zip(kinds, value, strict=True))
    )


def _wrong(name: str, wanted: str, value: Any) -> ValueError:
    shown = repr(value)
    return ValueError(f"{name or 'it'} must be {wanted}, not {shown if len(shown) <= 60 else shown[:59] + '…'}")
