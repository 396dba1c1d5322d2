"""Errors that a user can act on: the command line prints them as one line and exits with 1, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user gave is wrong: the message names the key, the value, what is allowed, and the remedy."""


def unknown(what: str, given: object, allowed: Iterable[object]) -> UserError:
    """The error for a name that does not exist: lists the allowed ones and suggests the nearest.

    Args:
        what: The kind of thing that was looked up, such as ``"gate"``.
        given: What the user wrote.
        allowed: Every valid choice.
    """
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return UserError(f"no {what} is called '{given}'; there are: {', '.join(names) or 'none'}{hint}")
