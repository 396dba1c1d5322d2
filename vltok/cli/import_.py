"""`vltok import`: a bundle of what another project trained."""

from __future__ import annotations

from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser


def run(arguments: list[str]) -> None:
    """Run `vltok import` with what follows the verb.

    Raises:
        UserError: An argument is wrong, or the checkpoint is damaged or of no known format.
    """
    # `from` is a word of Python's
    parser = verb_parser("import_model", "source", prog="import", left_out=["format"])
    parser.add_argument("--from", type=str | None, help="the importer; by default the one that knows the tensors")
    options = parse_options(parser, arguments)
    from vltok.verbs.import_model import import_model

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
