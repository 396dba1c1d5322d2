"""`vltok decompress`: the pictures of compressed files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vltok.cli.failures import require_all
from vltok.errors import how_many, one_line
from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser

if TYPE_CHECKING:
    from vltok.verbs.decompress import DecompressedPicture


def run(arguments: list[str]) -> None:
    """Run `vltok decompress` with what follows the verb.

    Raises:
        UserError: An argument is wrong, or some files could not be read; the pictures of the others then are there.
    """
    options = parse_options(verb_parser("decompress", "files", required=["out"]), arguments)
    from vltok.verbs.decompress import decompress

    found = decompress(**keywords(options), progress=_print)
    count = len(found.pictures)
    require_all(found.failed, count, "files could not be decompressed")
    print(f"{how_many(count, 'picture')} written to {options.out}")


def _print(done: DecompressedPicture) -> None:
    print(f"{one_line(done.name)}.png{f' of {done.held}' if done.held else ''}")
