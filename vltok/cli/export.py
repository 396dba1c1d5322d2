"""`vltok export`: a bundle as a model of another library."""

from __future__ import annotations

from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser


def run(arguments: list[str]) -> None:
    """Run `vltok export` with what follows the verb.

    Raises:
        UserError: There is no such bundle, or the library has no counterpart of it.
    """
    options = parse_options(verb_parser("export", "bundle", "out", required=["to"]), arguments)
    from vltok.verbs.export import export

    print(f"written: {export(**keywords(options))}")
