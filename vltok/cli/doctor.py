"""`vltok doctor`: what a training would use of pictures, leave out, and stumble over."""

from __future__ import annotations

import json

from jsonargparse import ArgumentParser

from vltok.cli.options import keywords
from vltok.cli.progress import shown
from vltok.errors import UserError, one_line
from vltok.io.recipes import parse_options

_DESCRIPTION = """\
Read through pictures before a long training, as it would read them, and say what it would use, leave out and stumble
over: counts by reason, sizes, modes, labels, duplicate keys, shards that are cut. It ends with 1 where a training would
lose anything.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok doctor` with what follows the verb.

    Raises:
        UserError: There is nothing to look at, or a training would lose something.
    """
    options = parse_options(_parser(), arguments)
    from vltok.verbs.doctor import doctor

    with shown("doctor") as progress:
        found = doctor(**keywords(options, "json"), progress=progress)
    if options.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        print("\n".join(map(one_line, found.lines())))
    if not found.sound:
        raise UserError(f"a training on '{found.source}' would lose something: {found.losses[0]}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok doctor", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument(
        "pictures",
        metavar="PICTURES_OR_SHARDS",
        type=str,
        help="a folder of pictures or of shards; or quoted shards, with braces or wildcards",
    )
    parser.add_argument("--picture", type=str | None, help="the ending of the pictures, where samples hold several")
    parser.add_argument("--workers", type=int | None, help="processes that read; as many as there are cores, up to 8")
    parser.add_argument("--json", action="store_true", help="print all that was found as JSON")
    return parser
