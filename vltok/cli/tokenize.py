"""`vltok tokenize`: the code sequences of pictures, as shards that `--data codes` and other trainers read."""

from __future__ import annotations

from vltok.cli.progress import shown, whose_part
from vltok.errors import how_many
from vltok.io.recipes import parse, recipe_parser
from vltok.verbs.options import add_options, description, keywords, with_bundle_path, with_default_data


def run(arguments: list[str]) -> None:
    """Run `vltok tokenize` with what follows the verb.

    Raises:
        UserError: An argument is wrong, pictures cannot be read, or codes cannot be written; finished shards stay.
    """
    arguments = with_default_data(with_bundle_path(arguments))
    parser = recipe_parser("vltok tokenize", description("tokenize"))
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    add_options(parser, "tokenize", arguments=arguments)
    options = parse(parser, arguments)
    from vltok.verbs.tokenize import tokenize

    with shown(f"tokenize{whose_part()}") as progress:
        found = tokenize(**keywords(options, "config"), progress=progress)
    if found.manifest is None:
        print(f"{whose_part().strip(', ')} is done; the last one to end writes the manifest")
        return
    if not found.new:
        print(f"{found.folder} holds these codes already: nothing is left to do")
    if found.manifest.skipped:
        print(f"skipped {how_many(len(found.manifest.skipped), 'picture')} that cannot be read; codes.json names them")
    figures = found.manifest.statistics
    ratios = ", ".join(f"factor {factor}: {share:.1%}" for factor, share in figures["ratios"].items())
    length = figures["length"]
    print(
        f"{how_many(figures['samples'], 'sequence')} of {length['mean']:.1f} codes (from {length['minimum']} to "
        f"{length['maximum']}){f', {ratios}' if ratios else ''}; "
        f"{figures['bits_per_pixel']['codes_and_grain_map']:.3f} bits per pixel; written to {found.folder}"
    )
