"""`vltok tokenize`: the code sequences of pictures, as shards that `--data codes` and other trainers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jsonargparse import ArgumentParser

from vltok.cli.options import DEVICE, OVERWRITE, TRUST, add_data, keywords, with_bundle_path, with_default_data
from vltok.cli.progress import shown, whose_part
from vltok.io.recipes import parse, recipe_parser

_DESCRIPTION = """\
Write the code sequences of pictures as shards. Killed at any moment and given again, the same command goes on from the
last whole shard; the result is what an undisturbed run writes. Under torchrun or srun, each process takes its part.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok tokenize` with what follows the verb.

    Raises:
        UserError: An argument is wrong, pictures cannot be read, or codes cannot be written; finished shards stay.
    """
    options = parse(_parser(arguments), with_default_data(with_bundle_path(arguments)))
    from vltok.verbs.tokenize import tokenize

    with shown(f"tokenize{whose_part()}") as progress:
        found = tokenize(**keywords(options), progress=progress)
    if found.manifest is None:
        print(f"{whose_part().strip(', ')} is done; the last one to end writes the manifest")
        return
    if not found.new:
        print(f"{found.folder} holds these codes already: nothing is left to do")
    if found.manifest.skipped:
        print(f"skipped {len(found.manifest.skipped)} pictures that cannot be read; codes.json names them")
    figures = found.manifest.statistics
    ratios = ", ".join(f"factor {factor}: {share:.1%}" for factor, share in figures["ratios"].items())
    print(
        f"{figures['samples']} sequences of {figures['length']['mean']:.1f} codes (from {figures['length']['minimum']} "
        f"to {figures['length']['maximum']}){f', {ratios}' if ratios else ''}; "
        f"{figures['bits_per_pixel']['codes_and_grain_map']:.3f} bits per pixel; written to {found.folder}"
    )


def _parser(arguments: Sequence[str]) -> ArgumentParser:
    parser = recipe_parser("vltok tokenize", _DESCRIPTION)
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_argument("--tokenizer", type=str, required=True, help="a tokenizer's bundle: a folder, or user/name")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    add_data(parser, arguments)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the shards and codes.json")
    parser.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    parser.add_argument(
        "--split",
        type=Literal["all", "train", "val"],
        default="all",
        help="all pictures, or those that training sees, or those that are held out",
    )
    parser.add_argument("--crops", type=int | None, help="random crops of each picture, with --split train")
    parser.add_argument("--flip", action="store_true", help="mirror half of these crops")
    parser.add_argument(
        "--format",
        type=Literal["webdataset", "parquet"],
        default="webdataset",
        help="tar files, for --data codes and webdataset; or Parquet, for Hugging Face datasets",
    )
    parser.add_argument("--shard-size", type=int, default=2000, help="pictures of a shard")
    parser.add_argument("--batch-size", type=int | None, help="pictures encoded at once; by default the data's")
    parser.add_argument("--device", type=str | None, help=DEVICE)
    parser.add_argument(
        "--precision", type=Literal["float32", "bfloat16", "float16"], default="float32", help="to compute in"
    )
    return parser
