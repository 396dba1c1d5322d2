"""`vltok detokenize`: the pictures of code sequences."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from jsonargparse import ArgumentParser, Namespace

from vltok.cli.options import TRUST
from vltok.errors import UserError
from vltok.files import alone_in, check_folder, safe_name
from vltok.io.recipes import parse_options

_DESCRIPTION = """\
Decode the code sequences in a folder that 'vltok tokenize' wrote. Each becomes a PNG under its source's key, with its
place in the input added where two keys differ in nothing but their ending.
"""
#: Folders of a key that are kept: paths must not be longer than systems take.
_DEEPEST = 16


def run(arguments: list[str]) -> None:
    """Run `vltok detokenize` with what follows the verb.

    Raises:
        UserError: An argument is wrong, the codes are damaged or of another tokenizer, or nothing can be written.
    """
    options = parse_options(_parser(), arguments)
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {options.batch_size}")
    out, codes = check_folder("--out", options.out), Path(options.codes).resolve()
    if out.resolve().is_relative_to(codes):
        raise UserError(f"--out '{out}' lies in the folder of the codes: name another folder")
    _detokenize(options, out)


def picture_name(key: str, index: int, taken: set[str]) -> str:
    """The relative path of a picture, without ending, that no other has; it never leads out of its folder.

    Args:
        key: The source's key, such as `cats/1.jpg`.
        index: The place in the input.
        taken: The names that others have, to which this one is added.
    """
    *folders, last = key.replace("\\", "/").split("/")
    # a folder never has the name that a picture may have
    names = [re.sub(r"\.png$", "_png", safe, flags=re.IGNORECASE) for part in folders if (safe := safe_name(part))]
    stem = safe_name(PurePosixPath(last).stem)
    name = "/".join([*names[-_DEEPEST:], stem]) if stem else f"{index:09d}"
    # some file systems do not tell capital letters from small ones
    while name.lower() in taken:
        name = f"{name}-{index:09d}"
    taken.add(name.lower())
    return name


def _detokenize(options: Namespace, out: Path) -> None:
    # --help and wrong arguments are answered without waiting for torch
    from vltok.cli.progress import progress
    from vltok.files import written_whole
    from vltok.io.bundles import fingerprint, load_tokenizer
    from vltok.measures.pixels import to_bytes, to_picture
    from vltok.sequences.manifest import CodeManifest
    from vltok.sequences.shards import CodeSample
    from vltok.verbs.coding import decode
    from vltok.verbs.devices import choose_device

    folder = Path(options.codes)
    manifest = CodeManifest.read(folder)
    found = fingerprint(options.tokenizer)
    if found != manifest.settings.tokenizer:
        raise UserError(
            f"the codes in {folder} are of another tokenizer ({manifest.settings.tokenizer[:12]}…) than "
            f"{options.tokenizer} ({found[:12]}…): give the one that they were made with"
        )
    device = choose_device(options.device)
    tokenizer = load_tokenizer(options.tokenizer, device, trust=options.trust)
    size = options.batch_size or manifest.settings.batch_size

    def batch_of(start: int, sample: CodeSample) -> tuple:
        """What all samples of a batch share."""
        return (sample.index - start) // size, None if sample.grains is None else sample.grains.shape

    def batches() -> Iterator[list[CodeSample]]:
        """The batches in which the pictures were encoded: arithmetic may depend on a batch's size in the last bit."""
        start = 0
        for shard in manifest.shards:
            samples = manifest.read_samples(folder, shard)
            for _, batch in itertools.groupby(samples, functools.partial(batch_of, start)):
                yield list(batch)
            start += manifest.settings.shard_size

    taken: set[str] = set()
    inside = out.resolve()
    with alone_in(out), progress("detokenize", manifest.statistics["samples"]) as report:
        for samples in batches():
            images = to_bytes(decode(tokenizer, samples, device))
            for sample, pixels in zip(samples, images.cpu(), strict=True):
                path = out / f"{picture_name(sample.key, sample.index, taken)}.png"
                if not path.parent.resolve().is_relative_to(inside):
                    raise UserError(f"'{path.parent}' is a link that leads out of --out '{out}': remove it")
                with written_whole(path) as file:
                    to_picture(pixels).save(file)
            report(len(samples))
    print(f"{manifest.statistics['samples']} pictures written to {out}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok detokenize", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("codes", type=str, help="a folder that 'vltok tokenize' wrote")
    parser.add_argument("--tokenizer", type=str, required=True, help="the bundle with which the codes were made")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the pictures")
    parser.add_argument(
        "--batch-size", type=int | None, help="pictures that are decoded at once; by default as they were encoded"
    )
    parser.add_argument("--device", type=str | None, help="'cpu', 'cuda' or 'cuda:1'; a GPU where there is one")
    return parser
