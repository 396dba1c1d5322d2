"""`vltok pack`: a folder of images becomes tar shards."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from vltok.cli.options import keywords
from vltok.io.recipes import parse_options


def run(arguments: list[str]) -> None:
    """Pack a folder, and print one line that says what was written.

    Raises:
        UserError: The folder holds no pictures, too many are corrupt, or the shards cannot be written where asked.
    """
    options = parse_options(_parser(), arguments)
    from vltok.verbs.pack import pack

    found = pack(**keywords(options))
    if found is None:
        print(f"put in place what the same command had packed when it was killed, at {options.shards}")
        return
    labels = "without classes" if found.classes is None else f"of {found.classes} classes"
    skipped = f"; skipped {found.corrupt} corrupt" if found.corrupt else ""
    print(
        f"packed {found.pictures} pictures {labels} into {found.shards} shards ({found.megabytes:.1f} MB) at "
        f"{found.pattern}{skipped}"
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="vltok pack",
        exit_on_error=False,
        description="Write a folder of images as webdataset tar shards. The sub-folders of its first level are the "
        "classes, if every image lies in one. Files are stored as they are. The same folder gives the same bytes.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="any tree of images")
    parser.add_argument(
        "shards",
        metavar="SHARDS",
        help="a folder for the shards, or a pattern that ends in .tar, with a number as printf has it",
    )
    parser.add_argument("--count", type=int, default=10_000, help="most pictures in a shard")
    parser.add_argument("--size-limit", type=int, default=1000, help="most megabytes in a shard")
    parser.add_argument(
        "--keep-order",
        action="store_true",
        help="keep the order of the folder; otherwise pictures are shuffled, as training wants its shards",
    )
    parser.add_argument("--seed", type=int, default=0, help="sets the shuffled order")
    parser.add_argument(
        "--max-corrupt",
        type=float,
        default=0.01,
        help="share of pictures that may be corrupt; they are left out",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace shards that are already there")
    parser.add_argument(
        "--workers",
        type=int | None,
        help="processes that look for corrupt pictures; as many as there are cores, up to 16, by default",
    )
    return parser
