"""`vltok push`: a bundle as a repository on the Hugging Face Hub."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords

_DESCRIPTION = """\
Write a bundle into a repository on the Hugging Face Hub, in one commit. The token is that of 'hf auth login', or of the
environment variable HF_TOKEN.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok push` with what follows the verb.

    Raises:
        UserError: There is no such bundle, or the Hub does not take it.
    """
    options = parse_options(_parser(), arguments)
    from vltok.verbs.push import push

    print(f"written: {push(**keywords(options))}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok push", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("bundle", type=str, help="a bundle")
    parser.add_argument("repository", type=str, help="user/name; it is made where there is none")
    parser.add_argument("--private", type=bool | None, help="whether a new repository is private")
    parser.add_argument("--tokenizer", type=str | None, help="for a prior, the repository of its tokenizer")
    parser.add_argument("--license", type=str | None, help="for the card, such as apache-2.0")
    parser.add_argument("--datasets", type=str, nargs="*", default=[], help="for the card: what it was trained on")
    parser.add_argument(
        "--picture", type=str | None, help="for the card; by default the coding maps beside the bundle of a run"
    )
    return parser
