"""`vltok doctor`: what a training would use of pictures, leave out, and stumble over."""

from __future__ import annotations

import json

from vltok.cli.progress import shown
from vltok.errors import UserError, one_line
from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser


def run(arguments: list[str]) -> None:
    """Run `vltok doctor` with what follows the verb.

    Raises:
        UserError: There is nothing to look at, or a training would lose something.
    """
    parser = verb_parser("doctor", "pictures")
    parser.add_argument("--json", action="store_true", help="print all that was found as JSON")
    options = parse_options(parser, arguments)
    from vltok.verbs.doctor import doctor

    with shown("doctor") as progress:
        found = doctor(**keywords(options, "json"), progress=progress)
    if options.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        print("\n".join(map(one_line, found.lines())))
    if not found.sound:
        raise UserError(f"a training on '{found.source}' would lose something: {found.losses[0]}")
