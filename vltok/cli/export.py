"""`vltok export`: a bundle as a model of another library."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords

_DESCRIPTION = """\
Write a tokenizer or a prior as a folder that another library loads, with the same numbers. 'vltok plugins exporter'
lists the libraries. To diffusers goes a tokenizer of one factor, whose parts are 'vqgan', 'vq' and 'vqgan'.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok export` with what follows the verb.

    Raises:
        UserError: There is no such bundle, or the library has no counterpart of it.
    """
    options = parse_options(_parser(), arguments)
    from vltok.verbs.export import export

    print(f"written: {export(**keywords(options))}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok export", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("bundle", type=str, help="a bundle, or user/name on the Hugging Face Hub")
    parser.add_argument("out", type=str, help="the folder to write")
    parser.add_argument("--to", type=str, required=True, help="the library, such as diffusers")
    return parser
