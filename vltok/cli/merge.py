"""`vltok merge`: exports of one tokenizer as a single one, and the end of one that was written in parts."""

from __future__ import annotations

from vltok.cli.exported import print_export
from vltok.cli.progress import shown
from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser


def run(arguments: list[str]) -> None:
    """Run `vltok merge` with what follows the verb.

    Raises:
        UserError: Parts are missing, the exports do not go together or are damaged, or nothing can be written.
    """
    options = parse_options(verb_parser("merge", "folders"), arguments)
    from vltok.verbs.merge import merge

    with shown("merge") as progress:
        found = merge(**keywords(options), progress=progress)
    print_export(found.manifest, found.folder)
