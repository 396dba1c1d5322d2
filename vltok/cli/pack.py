"""`vltok pack`: a folder of images becomes tar shards."""

from __future__ import annotations

from vltok.errors import how_many
from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser


def run(arguments: list[str]) -> None:
    """Pack a folder, and print one line that says what was written.

    Raises:
        UserError: The folder holds no pictures, too many are corrupt, or the shards cannot be written where asked.
    """
    options = parse_options(verb_parser("pack", "folder", "shards"), arguments)
    from vltok.verbs.pack import pack

    found = pack(**keywords(options))
    if found is None:
        print(f"put in place what the same command had packed when it was killed, at {options.shards}")
        return
    labels = "without classes" if found.classes is None else f"of {how_many(found.classes, 'class')}"
    skipped = f"; skipped {found.corrupt} corrupt" if found.corrupt else ""
    print(
        f"packed {how_many(found.pictures, 'picture')} {labels} into {how_many(found.shards, 'shard')} "
        f"({found.megabytes:.1f} MB) at "
        f"{found.pattern}{skipped}"
    )
