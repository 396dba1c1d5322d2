"""The registered components of a kind, as Markdown."""

import inspect
from collections.abc import Iterator

import docstring_parser
from docstring_parser import Docstring

import vltok
from vltok.io.inspection import Argument, Entry
from vltok.registry import find, kinds


def components(kind: str) -> str:
    """Every component of a kind that vltok itself brings: a section each."""
    group, interface = kinds()[kind]
    # of a class that has another name of before, the last one in the alphabet is that of now
    own = {entry.target: entry for entry in vltok.plugins(kind) if entry.distribution == "vltok"}.values()
    head = f"Group of entry points: `{group}`. Interface: {{py:obj}}`{interface.replace(':', '.')}`."
    return "\n\n".join([head, *("\n\n".join(_section(entry)) for entry in own)])


def _section(entry: Entry) -> Iterator[str]:
    if entry.error:
        raise ValueError(f"{entry.kind} {entry.name} cannot be used: {entry.error}")
    loaded = find(entry.kind, entry.name).load()
    documented = docstring_parser.parse(inspect.getdoc(loaded) or "")
    path = entry.target.replace(":", ".")
    yield f"({entry.kind}-{entry.name})=\n## `{entry.name}`"
    yield f"```{{py:class}} {path}\n:no-typesetting:\n```"
    yield f"`{path}`"
    yield from filter(None, (documented.short_description, documented.long_description))
    if entry.arguments:
        yield "**Arguments**"
        yield "\n".join(map(_argument, entry.arguments))
    yield from _raised(documented)


def _argument(argument: Argument) -> str:
    default = "required" if argument.default is None else f"default `{argument.default}`"
    return f"`{argument.name}`: `{argument.type}`, {default}\n: {argument.description}\n"


def _raised(documented: Docstring) -> Iterator[str]:
    for error in documented.raises:
        yield f"**Raises** `{error.type_name}`: {' '.join((error.description or '').split())}"
