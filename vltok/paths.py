"""Paths as users write them, on the command line, in recipes and in Python: what exists is taken as it is written.

Only what does not exist is read as a shell would read it: `~` and `$VAR`, then braces (`{000..146}`) and wildcards.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from vltok.errors import UserError

_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")


def read_path(given: str | os.PathLike) -> Path:
    """What a path means: `~` and `$VAR` are replaced where no file or folder has a name with them.

    Raises:
        UserError: It is empty.
    """
    if os.fspath(given) == "":
        raise UserError("a path is empty: write '.' for the folder where you are, or set the variable that is meant")
    head, rest = _split(os.fspath(given))
    return Path(head, os.path.expandvars(rest if head else os.path.expanduser(rest)))


def new_path(option: str, given: str | os.PathLike) -> Path:
    """The same for what is to be written, and need not exist.

    Args:
        option: What the user gives it by.
        given: The path.

    Raises:
        UserError: It is empty, or names a variable that is not set, or a user that is not known.
    """
    path = read_path(given)
    head, rest = _split(os.fspath(path))
    unset = _VARIABLE.search(rest)
    if unset or (not head and rest.startswith("~")):
        what = f"the variable {unset[1]} is not set" if unset else "there is no such user"
        raise UserError(f"{option} '{given}': {what}; write out what it stands for")
    return path


def find_files(option: str, given: str | os.PathLike, hint: str = "") -> list[str]:
    """The files and folders that a path or pattern stands for, each of which exists; those of a wildcard are sorted.

    Of a pattern, what exists is taken as it is written: `data[2]/*.tar` are those in the folder `data[2]`.

    Args:
        option: What the user gives it by.
        given: A path, or a pattern with braces (`{000..146}`, `{a,b}`) and wildcards (`*`, `?`, `[ab]`, `**`).
        hint: What is added where nothing is there.

    Raises:
        UserError: It is empty, or nothing is there: says what was looked for.
    """
    path = os.fspath(read_path(given))
    if os.path.lexists(path):
        return [path]
    found = []
    for one in _alternatives(option, path):
        if os.path.lexists(one):
            found.append(one)
        elif glob.has_magic(one):
            head, rest = _split(one)
            found += sorted(glob.glob(os.path.join(glob.escape(head), rest), recursive=True))
        else:
            raise UserError(f"{option} '{given}'{_unlike(one, given)} does not exist{hint}")
    if not found:
        raise UserError(f"{option} '{given}'{_unlike(path, given)} matches no file{hint}")
    return found


def _split(path: str) -> tuple[str, str]:
    """The longest part of a path that exists, and what follows it."""
    head, rest = path, ""
    while head and not os.path.lexists(head):
        parent, name = os.path.split(head)
        if parent == head:
            break
        head, rest = parent, os.path.join(name, rest) if rest else name
    return head, rest


def _alternatives(option: str, path: str) -> list[str]:
    if "{" not in path:
        return [path]
    import braceexpand  # of the extra [data]

    head, rest = _split(path)
    try:
        # a backslash may part folders
        return [os.path.join(head, each) for each in braceexpand.braceexpand(rest, escape=False)]
    except ValueError as error:
        raise UserError(f"{option} '{path}': {error}; write braces such as {{000..146}}") from error


def _unlike(read: str, given: str | os.PathLike) -> str:
    return "" if read == os.fspath(given) else f": '{read}'"
