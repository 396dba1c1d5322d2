"""Errors that a user can act on: the command line prints them as one line and exits with 1, without a traceback."""

import difflib
import operator
from collections.abc import Iterable
from typing import Any

#: NumPy's older generators, and Lightning with them, take no larger one.
LARGEST_SEED = 2**32 - 1
#: What libraries say of memory that ran out, where they raise no error of its kind.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory", "Cannot allocate memory")
#: Verbs of one thing that do not end as others do.
_OF_ONE = {"have": "has"}
_LONGEST_WORD = 160
_LONGEST_LINE = 400


class UserError(Exception):
    """Something that the user gave is wrong: the message names the key, the value, what is allowed, and the remedy."""


class SaidElsewhere(UserError):
    """An error that another process of the same training tells the user: here the command line prints nothing."""


class StoppedElsewhere(SaidElsewhere, KeyboardInterrupt):
    """A signal stopped the training, and another process of it says how to go on."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or any(said in str(error) for said in _OUT_OF_MEMORY)


def unknown(what: str, given: object, allowed: Iterable[object]) -> UserError:
    """The error for a name that does not exist: lists the allowed ones and suggests the nearest.

    Args:
        what: The kind of thing that was looked up, such as ``"gate"``.
        given: What the user wrote.
        allowed: Every valid choice.
    """
    names = [str(name) for name in allowed]
    small = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(given).lower(), small, n=1, cutoff=0.5)
    hint = f"; did you mean '{small[near[0]]}'?" if near else ""
    return UserError(f"no {what} is called '{given}'; there are: {', '.join(names) or 'none'}{hint}")


def check_seed(key: str, seed: int) -> None:
    """See that a seed is one that all sources of random numbers take.

    Raises:
        UserError: It is not.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"{key} must lie between 0 and {LARGEST_SEED}, not {seed}")


def how_many(count: int, noun: str, verb: str = "") -> str:
    """A count and what is counted, `2 classes`; with the verb that many things take, `1 picture lies`."""
    if count != 1:
        words = [f"{noun}{'es' if noun.endswith('s') else 's'}", verb]
    else:
        words = [noun, _OF_ONE.get(verb, f"{verb}s") if verb else ""]
    return " ".join([str(count), *filter(None, words)])


def one_line(text: object) -> str:
    """A text as a terminal may show it in one line: what it cannot print is escaped, and very long words are cut.

    Names of files, labels and keys are chosen by anybody: they may hold line ends, and orders to the terminal.
    """
    words = " ".join(str(text).encode("utf-8", "backslashreplace").decode("utf-8").split()).split(" ")
    line = " ".join(
        word if len(word) <= _LONGEST_WORD else f"{word[: _LONGEST_WORD - 50]}…{word[-40:]}" for word in words
    )
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE - 150].rstrip()} … {line[-140:].lstrip()}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)


def whole_number(key: str, value: Any, least: int | None = None, hint: str = "") -> int:
    """A whole number that the user gave, as Python has them.

    Args:
        key: What it is called.
        value: What the user wrote: NumPy's and torch's whole numbers are taken too, booleans are none.
        least: The least that it may be, if there is one.
        hint: Added to the message where it is too small, such as ``"; leave it out for all"``.

    Raises:
        UserError: It is no whole number, or too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise UserError(f"{key} must be a whole number, not {value!r}")
    if least is not None and number < least:
        raise UserError(f"{key} must be at least {least}, not {number}{hint}")
    return number
