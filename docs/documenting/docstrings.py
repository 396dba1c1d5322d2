"""The public Python API, for autodoc."""

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx


def public(module: str, *left_out: str) -> str:
    """What a module makes public, some names left out, as directives for autodoc.

    That is what its `__all__` lists, or else the classes and functions that it defines.
    """
    loaded = importlib.import_module(module)
    shown = [name for name in _names(loaded) if name not in left_out]
    return "\n\n".join(f"## `{name}`\n\n{_directive(f'{module}.{name}', getattr(loaded, name))}" for name in shown)


def as_rst(_: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings fence off drawings and code as Markdown does; reStructuredText indents them."""
    fenced, result = False, []
    for line in lines:
        if line.lstrip().startswith(":vartype"):
            line = line.replace("*", r"\*")  # axes such as *q are no emphasis
        if line.strip().startswith("```"):
            fenced = not fenced
            result += ["", f"{_indent(line)}::", ""] if fenced else [""]
        else:
            result.append(f"   {line}" if fenced else line)
    lines[:] = [re.sub(r"(?<![`\w])``?([^`]+)``?", _literal, line) for line in result]


def _names(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("_")]
    defined = (
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    )
    return [name for name in defined if not name.startswith("_")]


def _directive(path: str, value: Any) -> str:
    what = "class" if inspect.isclass(value) else "function" if inspect.isfunction(value) else "data"
    bases = "   :show-inheritance:\n" if getattr(value, "__bases__", (object,)) != (object,) else ""
    return f"```{{eval-rst}}\n.. auto{what}:: {path}\n{bases}```"


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _literal(found: re.Match[str]) -> str:
    """Code that is no name of Python is no link."""
    return f"`{found[1]}`" if re.fullmatch(r"[\w.]+", found[1]) else f"``{found[1]}``"
