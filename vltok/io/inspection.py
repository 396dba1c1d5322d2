"""What is shown of a registered component: where it comes from, and what its constructor takes."""

import inspect
import re
from dataclasses import asdict, dataclass
from typing import Any

import docstring_parser

from vltok.errors import UserError
from vltok.registry import Component, components


@dataclass(frozen=True)
class Argument:
    """One argument of a component's constructor.

    Attributes:
        name: Its name, which is the recipe's key.
        type: Its type, as one writes it.
        default: Its default, as one writes it in Python; None where it must be given.
        description: What it means.
    """

    name: str
    type: str
    default: str | None
    description: str


@dataclass(frozen=True)
class Entry:
    """What is shown of a component.

    Attributes:
        kind: One of `vltok.registry.kinds`.
        name: The name that recipes use.
        target: ``package.module:Class``.
        distribution: The distribution that declares it.
        version: That distribution's version.
        requires: The versions of vltok that it says it is built for; empty for any.
        summary: The first line of its docstring.
        error: Why it cannot be used; None where it can.
        arguments: What its constructor takes.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    requires: str
    summary: str
    error: str | None
    arguments: tuple[Argument, ...]


def inspect_component(component: Component) -> Entry:
    """What is shown of a component; it is imported, and what is wrong with it is part of what is shown."""
    summary = ""
    arguments: tuple[Argument, ...] = ()
    errors: list[str] = []
    try:
        loaded = component.load()
        summary = docstring_parser.parse(inspect.getdoc(loaded) or "").short_description or ""
        arguments = _arguments(loaded)
    except UserError as broken:
        errors.append(str(broken))
    except Exception as error:  # a plugin's class may have a signature or a docstring that cannot be read
        errors.append(f"its arguments cannot be read: {type(error).__name__}: {error}")
    rivals = [other for other in components(component.kind) if other.name == component.name and other != component]
    if rivals:
        others = ", ".join(f"{other.distribution} {other.version}" for other in rivals)
        errors.append(f"the name is also claimed by {others}: recipes must write {component.class_path}")
    said = " ".join("; ".join(errors).split()) or None
    return Entry(**asdict(component), summary=" ".join(summary.split()), error=said, arguments=arguments)


def _arguments(component: type[Any]) -> tuple[Argument, ...]:
    described: dict[str, str] = {}
    for text in (component.__doc__, component.__init__.__doc__):
        for parameter in docstring_parser.parse(text or "").params:
            described[parameter.arg_name] = " ".join((parameter.description or "").split())
    return tuple(
        Argument(
            parameter.name,
            _type_name(parameter.annotation),
            None if parameter.default is inspect.Parameter.empty else repr(parameter.default),
            described.get(parameter.name, ""),
        )
        for parameter in list(inspect.signature(component.__init__).parameters.values())[1:]
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    )


def _type_name(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "any"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
