"""Whether labels mean the same in two places."""

from __future__ import annotations

from collections.abc import Sequence

from vltok.errors import UserError


def same_classes(key: str, one: tuple[str, Sequence[str] | None], other: tuple[str, Sequence[str] | None]) -> None:
    """See that a place numbers its classes as another one does; it need not have the last of them.

    Args:
        key: What the user gives the place by that is looked at.
        one: What the user calls the place that it must agree with, and the names of its classes, where it has any.
        other: The same for the place that is looked at.

    Raises:
        UserError: A number is another class there, or none.
    """
    (first, ours), (second, theirs) = one, other
    if ours is None or theirs is None or list(ours[: len(theirs)]) == list(theirs):
        return
    differ = (place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    place = next(differ, min(len(ours), len(theirs)))
    here, there = (f"'{names[place]}'" if place < len(names) else "none" for names in (theirs, ours))
    raise UserError(
        f"{key}: the classes of '{second}' ({len(theirs)}) are not those of '{first}' ({len(ours)}): number {place} is "
        f"{here} here and {there} there; give pictures of the same classes, or pack these shards with the "
        "classes.json of the others beside them, so that a class has one number everywhere"
    )
