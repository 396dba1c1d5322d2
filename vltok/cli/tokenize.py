"""`vltok tokenize`: the code sequences of pictures, as shards that `--data codes` and other trainers read."""

from __future__ import annotations

from vltok.cli.exported import print_export
from vltok.cli.progress import name_of_share, say_done, shown
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

    mine = name_of_share(options.part)
    with shown(", ".join(filter(None, ("tokenize", mine)))) as progress:
        found = tokenize(**keywords(options, "config"), progress=progress)
    if found.manifest is None:
        say_done(mine, found.missing, "writes the manifest")
        return
    if not found.new:
        print(f"{found.folder} holds these codes already: nothing is left to do")
    print_export(found.manifest, found.folder)
