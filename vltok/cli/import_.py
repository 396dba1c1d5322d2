"""`vltok import`: a bundle of what another project trained."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords

_DESCRIPTION = """\
Write a bundle of a checkpoint of another project, such as taming-transformers, latent-diffusion, diffusers, LlamaGen or
the original DQ-VAE. The format is recognised by the names and shapes of the tensors ('vltok plugins importer' lists
them). Nothing in the checkpoint is executed.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok import` with what follows the verb.

    Raises:
        UserError: An argument is wrong, or the checkpoint is damaged or of no known format.
    """
    options = parse_options(_parser(), arguments)
    from vltok.verbs.import_model import import_model

    # `from` is a word of Python's
    found = import_model(**keywords(options, "from"), format=options["from"])
    for sentence in found.assumed:
        print(f"assumed: {sentence}")
    if found.left_out:
        print(
            f"{len(found.left_out)} tensors of the checkpoint have no place in the model, such as {found.left_out[0]}"
        )
    weights = "averages (EMA) of the weights" if found.averaged else "weights"
    what = f"{found.kind} of format {found.format} with {found.parameters:,} parameters"
    print(f"{what}: {weights} written to {found.bundle}")
    if found.kind == "prior":
        print(f"its tokenizer is {found.tokenizer}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok import", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument(
        "source", type=str, help="a checkpoint, a folder with one, or user/name on the Hugging Face Hub"
    )
    parser.add_argument("--out", type=str, required=True, help="the folder of the bundle")
    parser.add_argument(
        "--from", type=str | None, help="the importer, by default the one that knows the tensors' names"
    )
    parser.add_argument(
        "--config", type=str | None, help="the project's YAML or JSON file; by default one beside the checkpoint"
    )
    parser.add_argument(
        "--averages", type=bool, default=True, help="take the weights' moving averages (EMA) where there are any"
    )
    parser.add_argument(
        "--tokenizer",
        type=str | None,
        help="for a prior, its tokenizer's bundle; by default the one in its checkpoint, written to OUT-tokenizer",
    )
    parser.add_argument("--revision", type=str | None, help="a branch, a tag or a commit of the repository on the Hub")
    return parser
