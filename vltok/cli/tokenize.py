"""`vltok tokenize`: the code sequences of pictures, as shards that `--data codes` and other trainers read."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from vltok.errors import UserError
from vltok.files import check_folder
from vltok.launchers import find_rank

_DESCRIPTION = """\
Write the code sequences of pictures as shards. Killed at any moment and given again, the same command goes on from the
last whole shard; the result is what an undisturbed run writes. Under torchrun or srun, each process takes its part.
"""

#: Arguments of data on which no picture depends.
_OF_SPEED = ("workers", "batch_size")
#: What `--overwrite` means, for the verbs that export codes.
OVERWRITE = "replace another export of vltok's in --out, which stays until the new one is whole"
#: What `--trust` means, for every verb that loads a bundle.
TRUST = (
    "let bundles run any Python code that they name, and fetch what they name: as if you started a program of whoever "
    "wrote them; without it they may name registered components alone"
)


def run(arguments: list[str]) -> None:
    """Run `vltok tokenize` with what follows the verb.

    Raises:
        UserError: An argument is wrong, pictures cannot be read, or codes cannot be written; finished shards stay.
    """
    # importing torch takes seconds, and `vltok --help` imports the verbs' names alone
    from vltok.io.recipes import instantiate, parse

    parser = _parser()
    options = parse(parser, with_default_data(with_bundle_path(arguments)))
    for key in ("shard_size", "batch_size"):
        if options[key] is not None and options[key] < 1:
            raise UserError(f"--{key.replace('_', '-')} must be at least 1, not {options[key]}")
    check_folder("--out", options.out)
    _tokenize(instantiate(parser, options), _described(options))


def with_bundle_path(arguments: Sequence[str], options: Sequence[str] = ("--tokenizer",)) -> list[str]:
    """The arguments with bundles written as paths: recipes would take a bare `--tokenizer bundle` for a name."""
    arguments = list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in options and equals:
            arguments[place] = f"{option}={_path(value)}"
        elif option in options and place + 1 < len(arguments):
            arguments[place + 1] = _path(arguments[place + 1])
    return arguments


def with_default_data(arguments: Sequence[str]) -> list[str]:
    """The arguments with the embedded photographs where no data is named.

    As a default of the parser, jsonargparse would carry their arguments over to every class that takes their place.
    """
    named = any(argument.partition("=")[0] in ("--data", "--data.class_path", "--config") for argument in arguments)
    return list(arguments) if named else ["--data=photos", *arguments]


def _path(bundle: str) -> str:
    return bundle if "/" in bundle or bundle.startswith("-") else f"./{bundle}"


def _described(options: Namespace) -> dict[str, Any]:
    """The options that the input follows from, as JSON has them; how fast it is read is none of them."""
    given = {f"--data.{name}": value for name, value in options.data.init_args.items() if name not in _OF_SPEED}
    described = {"--data": options.data.class_path.rpartition(".")[2], **given, "--split": options.split}
    return json.loads(json.dumps(described, default=str))


def _tokenize(options: Namespace, described: dict[str, Any]) -> None:
    from vltok.cli.progress import progress
    from vltok.io.bundles import fingerprint, load_tokenizer
    from vltok.io.places import places_of
    from vltok.sequences.export import CodeExport
    from vltok.sequences.manifest import ExportSettings
    from vltok.verbs.tokenizing import write_codes

    rank, world_size, local_rank = find_rank(os.environ)
    device = choose_device(options.device, local_rank)
    source = options.data.export_source(options.split)
    tokenizer = load_tokenizer(options.tokenizer, device, trust=options.trust)
    settings = ExportSettings(
        tokenizer=fingerprint(options.tokenizer),
        format=options.format,
        shard_size=options.shard_size,
        batch_size=options.batch_size or options.data.batch_size,
        precision=options.precision,
        pictures=source.pictures,
        input=_digest([type(options.data).__qualname__, source.described, *source.keys()]),
        options=described,
    )
    places = places_of(options.tokenizer, options.out)
    export = CodeExport(
        Path(options.out),
        tokenizer.spec,
        settings,
        options.data.classes,
        rank,
        world_size,
        places,
        overwrite=options.overwrite,
    )
    try:
        if rank == 0 and export.finished:
            print(f"{options.out} holds these codes already: nothing is left to do")
        shards = export.pending()
        pending = sum(len(export.pictures(shard)) for shard in shards)
        mine = sum(len(export.pictures(shard)) for shard in export.shards[rank::world_size])
        if rank == 0 and not export.finished:
            part = f" in {world_size} processes" if world_size > 1 else ""
            print(f"{source.pictures} pictures, {len(export.shards)} shards, on {device}{part}", file=sys.stderr)
        if pending < mine and shards:
            print(f"going on from {mine - pending} pictures that are done", file=sys.stderr)
        purpose = "tokenize" if world_size == 1 else f"tokenize, process {rank} of {world_size}"
        with progress(purpose, mine, done=mine - pending) as report:
            write_codes(tokenizer, source, export, workers=options.data.workers, device=device, report=report)
        manifest = export.finish()
    finally:
        export.close()
    if manifest is None:
        print(f"process {rank} of {world_size} is done; the last one to end writes the manifest")
        return
    figures = manifest.statistics
    if manifest.skipped:
        print(f"skipped {len(manifest.skipped)} pictures that cannot be read; codes.json names them")
    ratios = ", ".join(f"factor {factor}: {share:.1%}" for factor, share in figures["ratios"].items())
    print(
        f"{figures['samples']} sequences of {figures['length']['mean']:.1f} codes (from {figures['length']['minimum']} "
        f"to {figures['length']['maximum']}){f', {ratios}' if ratios else ''}; "
        f"{figures['bits_per_pixel']['codes_and_grain_map']:.3f} bits per pixel; written to {options.out}"
    )


def choose_device(wanted: str | None, local_rank: int = 0) -> str:
    """The device that is asked for, or a GPU where there is one; each process of a machine gets another GPU.

    Raises:
        UserError: It is not on this machine.
    """
    import torch

    device = wanted or "cpu"
    if wanted in (None, "cuda") and torch.cuda.is_available():
        device = f"cuda:{local_rank % torch.cuda.device_count()}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA fails an assertion
        raise UserError(f"--device '{device}' is not on this machine: {str(error).splitlines()[0]}") from error
    return device


def _digest(parts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _parser() -> ArgumentParser:
    from vltok.io.recipes import recipe_parser
    from vltok.pictures.images import ImageData

    parser = recipe_parser("vltok tokenize", _DESCRIPTION)
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_argument("--tokenizer", type=str, required=True, help="a tokenizer's bundle: a folder, or user/name")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_subclass_arguments(
        ImageData,
        "data",
        required=True,
        help="the pictures, by default the embedded photographs; its batch_size and workers count here too",
    )
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the shards and codes.json")
    parser.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    parser.add_argument(
        "--split",
        type=Literal["all", "train", "val"],
        default="all",
        help="all pictures, or those that training sees, or those that are held out",
    )
    parser.add_argument(
        "--format",
        type=Literal["webdataset", "parquet"],
        default="webdataset",
        help="tar files, for --data codes and webdataset; or Parquet, for Hugging Face datasets",
    )
    parser.add_argument("--shard-size", type=int, default=2000, help="pictures of a shard")
    parser.add_argument("--batch-size", type=int | None, help="pictures encoded at once; by default the data's")
    parser.add_argument("--device", type=str | None, help="'cpu', 'cuda' or 'cuda:1'; a GPU where there is one")
    parser.add_argument(
        "--precision", type=Literal["float32", "bfloat16", "float16"], default="float32", help="to compute in"
    )
    return parser
