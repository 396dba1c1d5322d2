"""Which classes are drawn: names and numbers as people give them."""

from __future__ import annotations

import difflib
from collections.abc import Container, Mapping, Sequence
from unicodedata import normalize

import torch
from jaxtyping import Int
from torch import Tensor

from vltok.errors import UserError


def choose_labels(
    given: str | Sequence[int | str] | None, classes: int | None, count: int, names: Sequence[str] | None = None
) -> Int[Tensor, " b"] | None:
    """The class of each picture: those that are named, in turn.

    Args:
        given: ``207,fruit`` or ``[207, "fruit"]``, ``all`` or ``none``; None for all where there are any.
        classes: How many the prior knows, or None.
        count: How many pictures.
        names: What the classes are called, where that is known.

    Returns:
        None for pictures of no class.

    Raises:
        UserError: There is no such class.
    """
    if given == "none":
        return None
    if classes is None:
        if given is None:
            return None
        shown = given if isinstance(given, str) else ",".join(map(str, given))
        raise UserError(f"--labels is '{shown}', but this prior knows no classes: leave it out")
    if given is None or given == "all":
        return torch.arange(count) % classes
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names or ()):
        numbers.setdefault(normalize("NFC", name), []).append(number)
    parts = _parts(normalize("NFC", given), numbers) if isinstance(given, str) else given
    named = torch.tensor([_class(part, classes, numbers) for part in parts])
    return named[torch.arange(count) % len(named)]


def _parts(text: str, names: Container[str]) -> list[str]:
    """What stands between commas; names that have commas themselves stay whole."""
    parts, left = [], text.split(",")
    while left:
        runs = (",".join(left[:end]).strip() for end in range(len(left), 0, -1))
        part = next((run for run in runs if run in names), left[0].strip())
        parts.append(part)
        # as many as it took
        left = left[part.count(",") + 1 :]
    return parts


def _class(given: int | str, classes: int, names: Mapping[str, Sequence[int]]) -> int:
    """The number of a class: what is a name is none, even where it has digits alone."""
    text = normalize("NFC", str(given))
    found = names.get(text, ()) if isinstance(given, str) else ()
    if len(found) > 1:
        numbers = " and ".join(map(str, found))
        raise UserError(f"--labels: '{given}' is the name of the classes {numbers}: give one of these numbers")
    if found:
        return found[0]
    if text.isdecimal() and int(text) < classes:
        return int(text)
    near = difflib.get_close_matches(text, names, n=1)
    raise UserError(
        f"--labels must be {'names of classes or ' if names else ''}numbers from 0 to {classes - 1}, as in 207,360, or "
        f"'all' or 'none', not '{given}'{f'; did you mean {near[0]!r}?' if near else ''}"
    )
