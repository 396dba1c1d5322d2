"""`vltok detokenize`: the pictures of code sequences."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from vltok.cli.options import DEVICE, TRUST, keywords
from vltok.cli.progress import shown
from vltok.io.recipes import parse_options

_DESCRIPTION = """\
Decode the code sequences in a folder that 'vltok tokenize' wrote. Each becomes a PNG under its source's key, with its
place in the input added where two keys differ in nothing but their ending.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok detokenize` with what follows the verb.

    Raises:
        UserError: An argument is wrong, the codes are damaged or of another tokenizer, or nothing can be written.
    """
    options = parse_options(_parser(), arguments)
    from vltok.verbs.detokenize import detokenize

    with shown("detokenize") as progress:
        found = detokenize(**keywords(options), progress=progress)
    print(f"{found.pictures} pictures written to {found.folder}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok detokenize", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("codes", type=str, help="a folder that 'vltok tokenize' wrote")
    parser.add_argument("--tokenizer", type=str, required=True, help="the bundle with which the codes were made")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the pictures")
    parser.add_argument(
        "--batch-size", type=int | None, help="pictures that are decoded at once; by default as they were encoded"
    )
    parser.add_argument("--device", type=str | None, help=DEVICE)
    return parser
