"""What a bundle may name without the user's word: registered components, and nothing outside of itself.

The line between the two halves: `check` refuses what a bundle must not hold before anything of it is built, and says
which key is meant; `only_imports` holds jsonargparse, which imports what a value names wherever a type lets it, to the
classes that `check` has found, whatever form such a value takes.
"""

import contextlib
import dataclasses
import inspect
import re
import sys
import threading
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jsonargparse import _common as settings

from vltok.errors import UserError
from vltok.registry import registered

#: jsonargparse's settings count for the whole process, so that one thread at a time may change them.
_SETTINGS = threading.RLock()
_IMPORTS = ("import_path_verdicts", "import_paths_enforced")
#: Addresses such as ``hf-hub:user/model``, whatever a reader may strip off them, and paths that lead elsewhere.
_OUTSIDE = re.compile(r"[\W_]*[A-Za-z][\w\s+.-]*:|[/\\~]|\.\.?[/\\]")


def check(tree: Mapping[str, Any]) -> set[type]:
    """See that what a bundle describes can be built without the user's word.

    Args:
        tree: What the bundle builds, under its kind, with its names resolved.

    Returns:
        The classes that it names, all of them registered components.

    Raises:
        UserError: It names another class, weights to fetch, or an address.
    """
    return set(_classes(tree, ()))


@contextlib.contextmanager
def only_imports(classes: Collection[type] | None) -> Iterator[None]:
    """Let what jsonargparse reads import these classes alone, and nothing else; None lets it import anything."""
    with _SETTINGS:
        before = {name: settings.parsing_settings[name] for name in _IMPORTS}
        if classes is not None:
            named = [*classes, *(part for each in classes for part in _declared(each))]
            allowed = dict.fromkeys((path for each in named for path in _paths(each)), True)
            settings.parsing_settings.update(import_path_verdicts={"*": False, **allowed}, import_paths_enforced=True)
        try:
            yield
        finally:
            settings.parsing_settings.update(before)


def distrusted(key: str, what: str) -> UserError:
    """The error for what a bundle holds that needs the user's word.

    Args:
        key: Where it stands.
        what: What it is, and what it would do.
    """
    return UserError(
        f"{key} is {what}; a bundle from somebody else may only name registered components: if you trust whoever wrote "
        "it as you would trust a program, load it with trust=True, or --trust on the command line"
    )


def _classes(tree: Any, keys: tuple[str, ...]) -> Iterator[type]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _classes(value, (*keys, str(key)))
    elif isinstance(tree, list):
        for item in tree:
            yield from _classes(item, keys)
    elif keys[-1].rpartition(".")[2] == "class_path":
        found = registered(tree) if isinstance(tree, str) else None
        if found is None:
            raise distrusted(
                ".".join(keys), f"{tree!r}, which is no registered component: it would import and run other code"
            )
        yield found
    elif keys[-1] == "pretrained" and tree:
        raise distrusted(".".join(keys), f"{tree!r}: it would fetch weights that are not the bundle's own")
    elif isinstance(tree, str) and _OUTSIDE.match(tree):
        raise distrusted(".".join(keys), f"{tree!r}: it names a place outside of the bundle")


def _declared(component: type[Any]) -> Iterator[Any]:
    """The classes and functions that a class's own arguments name: as their types, or where they are left out."""
    for constructor in filter(inspect.isfunction, {vars(owner).get("__init__") for owner in component.__mro__}):
        for parameter in inspect.signature(constructor).parameters.values():
            if parameter.default is not parameter.empty and hasattr(parameter.default, "__qualname__"):
                yield parameter.default
        with contextlib.suppress(NameError, TypeError):  # a type that cannot be resolved names nothing
            for hint in typing.get_type_hints(constructor).values():
                yield from (part for part in (hint, *typing.get_args(hint)) if _needs_no_name(part))


def _needs_no_name(part: Any) -> bool:
    """Whether a recipe gives its fields or arguments alone."""
    return dataclasses.is_dataclass(part) or getattr(part, "__final__", False)


def _paths(named: Any) -> Iterator[str]:
    """The dotted paths of a class or function: where it is written, and those packages above that show it."""
    module, name = named.__module__ or "", named.__qualname__
    while module:
        if module == named.__module__ or getattr(sys.modules.get(module), name, None) is named:
            yield f"{module}.{name}"
        module = module.rpartition(".")[0]
