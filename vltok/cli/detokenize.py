"""`vltok detokenize`: the pictures of code sequences."""

from __future__ import annotations

from vltok.cli.progress import shown
from vltok.errors import how_many
from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser


def run(arguments: list[str]) -> None:
    """Run `vltok detokenize` with what follows the verb.

    Raises:
        UserError: An argument is wrong, the codes are damaged or of another tokenizer, or nothing can be written.
    """
    options = parse_options(verb_parser("detokenize", "codes"), arguments)
    from vltok.verbs.detokenize import detokenize

    with shown("detokenize") as progress:
        found = detokenize(**keywords(options), progress=progress)
    print(f"{how_many(found.pictures, 'picture')} written to {found.folder}")
