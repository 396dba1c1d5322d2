"""`vltok compress`: pictures as small files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vltok.cli.failures import require_all
from vltok.errors import how_many, one_line
from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser

if TYPE_CHECKING:
    from vltok.verbs.compress import CompressedPicture


def run(arguments: list[str]) -> None:
    """Run `vltok compress` with what follows the verb.

    Raises:
        UserError: An argument is wrong, or some pictures could not be compressed; the others then are.
    """
    options = parse_options(verb_parser("compress", "pictures", required=["out"]), arguments)
    from vltok.verbs.compress import compress

    found = compress(**keywords(options), progress=_print)
    count = len(found.pictures)
    require_all(found.failed, count, "pictures could not be compressed")
    size = sum(picture.size for picture in found.pictures)
    pixels = sum(picture.height * picture.width for picture in found.pictures)
    print(
        f"{size} bytes in {how_many(count, 'file')}, {8 * size / pixels:.3f} bits per pixel; written to {options.out}"
    )


def _print(done: CompressedPicture) -> None:
    print(
        f"{one_line(done.name)}: {done.size} bytes, {done.bits_per_pixel:.3f} bits per pixel, {done.code_length} codes"
    )
