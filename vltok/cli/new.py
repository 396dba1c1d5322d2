"""`vltok new`: writes a package of one's own with a component that works, its contract test and a recipe."""

from __future__ import annotations

import argparse

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from vltok.io.recipes import parse_options
from vltok.verbs.new import NEW, new

_DESCRIPTION = """\
Write a package of your own with a component that works, its contract test and a recipe:

  my-gate/
    pyproject.toml          the entry point, and the versions of vltok that it is for
    src/my_gate/gate.py     the component
    tests/test_gate.py      holds it to vltok.testing's contract
    recipe.yaml             trains with it in seconds
    README.md
"""


class _AsWritten(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of a description as they are."""


def run(arguments: list[str]) -> None:
    """Write a package.

    Raises:
        UserError: The kind does not exist, the name cannot be taken, or the folder exists.
    """
    parser = ArgumentParser(prog="vltok new", description=_DESCRIPTION, formatter_class=_AsWritten, exit_on_error=False)
    parser.add_argument("kind", type=str, help=f"what to write: {', '.join(NEW)}")
    parser.add_argument("name", type=str, help="its name in recipes, and the package's: lower case, such as my-gate")
    parser.add_argument("--out", type=str | None, help="the folder to write; ./NAME by default")
    given = parse_options(parser, arguments)
    folder = new(given.kind, given.name, given.out)
    print(
        f"wrote {folder}, the {given.kind} '{given.name}'; next: cd {folder}, then pip install -e '.[test]', pytest, "
        f"and what its README says"
    )
