"""`vltok compare`: the command line of `vltok.compare`, which says what its folder holds."""

from __future__ import annotations

import sys

from vltok.io.recipes import parse_options
from vltok.verbs.options import verb_parser


def run(arguments: list[str]) -> None:
    """Run `vltok compare` with what follows the verb.

    Raises:
        UserError: A run cannot be read, or two were measured under different protocols.
    """
    options = parse_options(verb_parser("compare", "folders", required=["out"]), arguments)
    from vltok.verbs.compare import compare

    found = compare(options.folders, options.out)
    for note in found.comparison.notes:
        print(f"vltok: {note}", file=sys.stderr)
    table = f"{found.comparison.markdown()}\n" if found.comparison.records else ""
    print(f"{table}written: {', '.join(map(str, found.files))}")
