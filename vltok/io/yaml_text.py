"""YAML that somebody else may have written: read with bounds, so that a short text cannot fill the memory."""

from collections.abc import Callable
from typing import Any

import yaml

#: The most values that a text may come to once its aliases are written out.
_MOST_VALUES = 100_000
#: How deep values may be nested.
_DEEPEST = 60
#: How PyYAML shows one.
_TAB = repr("\t")


def load(text: str, construct: Callable[[str], Any] = yaml.safe_load) -> Any:
    """The values of a YAML text; no tag in it makes anything but plain values.

    Args:
        text: The text.
        construct: What makes values of it.

    Raises:
        yaml.YAMLError: It is not YAML, a key stands twice or is no scalar, values are nested too deep or hold
            themselves, or its aliases stand for too many of them.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is not None:
            _count(root, {}, 0)
        return construct(text)
    except RecursionError as error:
        raise yaml.YAMLError("values are nested too deep") from error
    except ValueError as error:  # a date or a number that Python has no value for
        raise yaml.YAMLError(str(error)) from error


def problem_of(error: yaml.YAMLError) -> str:
    """What is wrong with a text, and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{where}{problem}{'; indent with spaces, not tabs' if _TAB in problem else ''}"


def _count(node: yaml.Node, counted: dict[int, int], depth: int) -> int:
    """How many values a node stands for."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if depth > _DEEPEST:
        raise _problem(node, f"values are nested more than {_DEEPEST} deep")
    if id(node) in counted:
        if not counted[id(node)]:
            raise _problem(node, "a value holds itself")
        return counted[id(node)]
    counted[id(node)] = 0
    children = node.value
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        children = [child for pair in node.value for child in pair]
    total = 1
    for child in children:
        total += _count(child, counted, depth + 1)
        if total > _MOST_VALUES:
            raise _problem(node, f"there are more than {_MOST_VALUES} values")
    counted[id(node)] = total
    return total


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _problem(key, "a key must be a word or a number")
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            raise _problem(key, f"key '{key.value}' stands here twice")
        seen.add(key.value)


def _problem(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
