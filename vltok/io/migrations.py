"""The formats of bundles, and the way from each to the next.

| format | written by vltok | what the next one changes |
| --- | --- | --- |
| 1 | since 0.1.0 | it is the present one |

Within a format, readers do without keys of `config.yaml` that were added since: format 1 of 0.1.0 has no `summary`,
`figures` and `provenance`. Arguments that were added have defaults, and those that moved are listed by their class.
Whatever else a version renames makes the next format: a line of the table, and a `Migration` from the format before. So
does the attribute of a component, whose name is part of the names of weights. Bundles stay as they are on the disk, and
so do their fingerprints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Migration:
    """What makes the next format of one.

    Attributes:
        config: Gives what `config.yaml` says in the next format, from what it says; it changes nothing in place.
        tensor: Gives the next name of a tensor, from what `config.yaml` says in this format and the name.
    """

    config: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda content: content
    tensor: Callable[[Mapping[str, Any], str], str] = lambda _, name: name


#: The migration from each format to the next.
MIGRATIONS: dict[int, Migration] = {}


def present() -> int:
    """The format that is written."""
    return 1 + len(MIGRATIONS)


def migrated(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a bundle's `config.yaml` says, in the present format."""
    for format in range(content["format"], present()):
        content = {**MIGRATIONS[format].config(content), "format": format + 1}
    return content


def tensor_names(content: Mapping[str, Any], names: list[str]) -> dict[str, str]:
    """What the tensors of a bundle are called in the present format, by their names in its own."""
    found = {name: name for name in names}
    for format in range(content["format"], present()):
        migration = MIGRATIONS[format]
        found = {name: migration.tensor(content, since) for name, since in found.items()}
        content = {**migration.config(content), "format": format + 1}
    return found
