"""Misspelt names of components in recipes, found without importing any component, which loads torch.

What a name means follows from the type of the parameter that it fills (`vltok.io.recipe_names`), and types are known
once torch is loaded. A name that is nearly one of the kind by which its key is called is told before.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from vltok.errors import unknown
from vltok.registry import components, kinds


def check_spelling(tree: Any, key: str = "") -> None:
    """See that no `class_path` is nearly the name of a component.

    Args:
        tree: What a recipe holds, or a part of it.
        key: Under which that stands.

    Raises:
        UserError: One is.
    """
    if isinstance(tree, list):
        for item in tree:
            check_spelling(item, key)
    elif isinstance(tree, Mapping):
        for inner, value in tree.items():
            *above, last = [key, *str(inner).split(".")]
            if last == "class_path":
                _check_name(value, above[-1])
            else:
                check_spelling(value, last)
    elif key == "data":
        _check_name(tree, key)


def _check_name(name: Any, kind: str) -> None:
    if not isinstance(name, str) or "." in name or "/" in name or kind not in kinds():
        return
    names = sorted({component.name for component in components(kind)})
    # a parameter may be called as one kind is, and take another
    registered = any(component.name == name for each in kinds() for component in components(each))
    if not registered and difflib.get_close_matches(name, names, n=1):
        raise unknown(kind, name, names)
