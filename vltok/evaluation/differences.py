"""What differs between two trees of plain values, such as recipes or protocols."""

from collections.abc import Iterator, Mapping
from typing import Any

#: What a tree has where the other has a value.
ABSENT = "absent"


def differences(first: Mapping, second: Mapping) -> dict[str, tuple[Any, Any]]:
    """The values that differ, by dotted key, in the order in which they stand; what one lacks is ``"absent"``."""
    left, right = flat(first), flat(second)
    pairs = {key: (left.get(key, ABSENT), right.get(key, ABSENT)) for key in {**left, **right}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def look_up(tree: Mapping, key: str) -> Any:
    """The value of a dotted key, such as ``ratios.8``, or None where the tree has none."""
    return flat(tree).get(key)


def flat(tree: Mapping) -> dict[str, Any]:
    """Every value of a tree, by dotted key."""
    return dict(_flat(tree))


def _flat(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
