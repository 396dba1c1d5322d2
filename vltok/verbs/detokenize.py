"""`vltok.detokenize`: the pictures of code sequences."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vltok.errors import UserError, whole_number
from vltok.files import alone_in, check_folder, safe_name, written_whole
from vltok.interfaces import Tokenizer
from vltok.io.bundles import fingerprint
from vltok.measures.pixels import to_bytes, to_picture
from vltok.paths import read_path
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.shards import CodeSample, by_grid
from vltok.verbs.coding import decode
from vltok.verbs.compiling import compiled
from vltok.verbs.counting import Progress, counted
from vltok.verbs.inputs import open_tokenizer

#: Folders of a key that are kept: paths must not be longer than systems take.
_DEEPEST = 16


@dataclass(frozen=True)
class Detokenized:
    """What `detokenize` gave.

    Attributes:
        folder: Where the pictures are.
        pictures: How many.
    """

    folder: Path
    pictures: int


def detokenize(
    codes: str | os.PathLike,
    out: str | os.PathLike,
    *,
    tokenizer: Tokenizer | str | os.PathLike,
    batch_size: int | None = None,
    device: str | None = None,
    compile: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
) -> Detokenized:
    """Decode the code sequences in a folder that `vltok tokenize` wrote.

    Each becomes a PNG under its source's key, with its place in the input added where two keys differ in nothing but
    their ending.

    Args:
        codes: A folder that `vltok tokenize` wrote.
        out: The folder that receives the pictures.
        tokenizer: The bundle with which the codes were made; in Python, a tokenizer too, which is taken at its word.
        batch_size: Pictures that are decoded at once; by default as they were encoded.
        device: `cpu`, `cuda` or `cuda:1`; by default where the tokenizer is, or a GPU where there is one.
        compile: Whether to compile encoder and decoder with torch.compile, for long runs on a GPU: it takes minutes, so
            that fewer than 100 batches are coded as without, and gained nothing on the CPU where it was measured.
        trust: Whether the bundle may name more than registered components: see `load_tokenizer`.
        progress: Is told how many pictures are done.

    Raises:
        UserError: An argument is wrong, the codes are damaged or of another tokenizer, or nothing can be written.
    """
    if batch_size is not None:
        whole_number("--batch-size", batch_size, 1)
    folder, out = read_path(codes), check_folder("--out", out)
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out '{out}' lies in the folder of the codes: name another folder")
    manifest = CodeManifest.read(folder)
    if not isinstance(tokenizer, Tokenizer) and (found := fingerprint(tokenizer)) != manifest.settings.tokenizer:
        raise UserError(
            f"the codes in {folder} are of another tokenizer ({manifest.settings.tokenizer[:12]}…) than "
            f"{tokenizer} ({found[:12]}…): give the one that they were made with"
        )
    count = manifest.statistics["samples"]
    taken: set[str] = set()
    inside = out.resolve()
    size = batch_size or manifest.settings.batch_size
    with (
        open_tokenizer(tokenizer, device, trust=trust) as opened,
        alone_in(out),
        compiled(opened.model, compile, count // size),
    ):
        report = counted(progress, count)
        for samples in _batches(manifest, folder, size):
            images = to_bytes(decode(opened.model, samples, opened.device))
            for sample, pixels in zip(samples, images.cpu(), strict=True):
                path = out / f"{picture_name(sample.key, sample.index, taken)}.png"
                if not path.parent.resolve().is_relative_to(inside):
                    raise UserError(f"'{path.parent}' is a link that leads out of --out '{out}': remove it")
                with written_whole(path) as file:
                    to_picture(pixels).save(file)
            report(len(samples))
    return Detokenized(out, count)


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


def _batches(manifest: CodeManifest, folder: Path, size: int) -> Iterator[list[CodeSample]]:
    """The batches in which the pictures were encoded: arithmetic may depend on a batch's size in the last bit."""

    def batch_of(sample: CodeSample) -> int:
        return sample.index % manifest.settings.shard_size // size

    for shard in manifest.shards:
        for _, batch in itertools.groupby(manifest.read_samples(folder, shard), batch_of):
            yield from by_grid(batch)
