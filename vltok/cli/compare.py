"""`vltok compare`: the command line of `vltok.compare`, which says what its folder holds."""

from __future__ import annotations

import sys

from jsonargparse import ArgumentParser

from vltok.io.recipes import parse_options

_DESCRIPTION = """\
Write a table and plots of what was measured. RUN is a folder that 'vltok evaluate' or 'vltok reconstruct' has written,
or a run folder of 'vltok fit', whose logs give curves over the steps, and whose evaluation/ counts where there is one.
A column holds figures of one protocol alone: where two runs differ in what a figure depends on, nothing is written, and
the key that differs is named. Timings of two machines, and what 'vltok fit' measured of other data, are left out.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok compare` with what follows the verb.

    Raises:
        UserError: A run cannot be read, or two were measured under different protocols.
    """
    options = parse_options(_parser(), arguments)
    from vltok.verbs.compare import compare

    found = compare(options.runs, options.out)
    for note in found.comparison.notes:
        print(f"vltok: {note}", file=sys.stderr)
    table = f"{found.comparison.markdown()}\n" if found.comparison.records else ""
    print(f"{table}written: {', '.join(map(str, found.files))}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok compare", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument(
        "runs", nargs="+", type=str, help="folders that 'vltok evaluate' has written, or run folders of 'vltok fit'"
    )
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the table and the plots")
    return parser
