"""What the command line says of an error: one line, and an exit code. Imports no torch of its own."""

from __future__ import annotations

import argparse

from vltok.verbs.explanations import explanation, printable


def verdict(error: BaseException, verb: str) -> tuple[str, int]:
    """The line and the exit code for an error.

    Args:
        error: What stopped the verb.
        verb: Which one.
    """
    text = printable(error)
    if isinstance(error, argparse.ArgumentError):
        return f"error: {text}", 2
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted{f': {text}' if text else ''}", 130
    found = explanation(error, verb)
    if found is not None:
        return f"error: {found}", 1
    return f"unexpected: {type(error).__name__}: {text} (run again with --debug for the traceback)", 1
