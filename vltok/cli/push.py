"""`vltok push`: a bundle as a repository on the Hugging Face Hub."""

from __future__ import annotations

from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser


def run(arguments: list[str]) -> None:
    """Run `vltok push` with what follows the verb.

    Raises:
        UserError: There is no such bundle, or the Hub does not take it.
    """
    options = parse_options(verb_parser("push", "bundle", "repository"), arguments)
    from vltok.verbs.push import push

    print(f"written: {push(**keywords(options))}")
