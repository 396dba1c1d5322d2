"""`python -m tests.acceptance BUNDLE`: what a trained tokenizer keeps of what `--rate` and `vltok compress` promise.

On random crops of the embedded photographs: a calibration sees one half, and figures are those of the other half.
Every file is read and written again by another process with another number of threads. Prints a line for each promise,
and ends with 1 where one is broken. Means of pictures that are encoded alone lie within half a percent, or within what
so many pictures can tell: lengths differ by a third, so that 2,000 of them tell their mean to a percent.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import vltok
from vltok.codes import Codes
from vltok.compression.file_format import pack, unpack
from vltok.compression.table_coder import TableCoder
from vltok.compression.tables import CodeTables
from vltok.interfaces import Candidates, Steerable, Tokenizer
from vltok.measures.codes import fixed_rate_bits
from vltok.measures.pixels import psnr, to_bytes
from vltok.pictures.photos import Photos
from vltok.tokenizers.rate import calibrate
from vltok.verbs.coders import open_coders

_BATCH = 50
#: From so many bytes on, whole files are to take less than the estimate.
_HEADERS_COUNT_LESS = 100
_SHARES = (0.4, 0.5, 0.6, 0.75, 0.9)


def main(arguments: list[str]) -> int:
    """Print what holds; 1 where something does not."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--prior", type=Path, help="of its codes; compresses as many pictures again")
    parser.add_argument("--pictures", type=int, default=2000, metavar="N", help="that rates are tried on")
    parser.add_argument("--files", type=int, default=10_000, metavar="N")
    parser.add_argument("--prior-files", type=int, default=20, metavar="N")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # what the other process is told
    given = parser.parse_args(arguments)
    if given.read is not None:
        return _read_back(given)
    tokenizer = vltok.load_tokenizer(given.bundle, device="cpu")
    found = [*_rates(tokenizer, given), *_files(given)]
    for promise, what, holds in found:
        print(f"{'holds ' if holds else 'BROKEN'}  {promise}: {what}", flush=True)
    return 0 if all(holds for _, _, holds in found) else 1


def _crops(given: argparse.Namespace, count: int, seed: int) -> Iterator[Float[Tensor, "b 3 H W"]]:
    """Random crops of the training photographs; those of another seed are others."""
    data = Photos(size=given.size, batch_size=_BATCH, train_crops=max(count, _BATCH), seed=seed)
    for batch in data.training_crops_dataloader():
        yield batch.images[:count]


def _rates(tokenizer: Tokenizer, given: argparse.Namespace) -> Iterator[tuple[str, str, bool]]:
    assert isinstance(tokenizer, Steerable)
    calibration = calibrate(tokenizer, _crops(given, given.pictures, 0))
    tokenizer.calibration = calibration
    lengths: dict[float, list[Tensor]] = {share: [] for share in _SHARES}
    most, together, off = 0, 0.0, []
    over, missed, reachable = 0, 0, 0
    for images in _crops(given, given.pictures, 1):
        found: Candidates = tokenizer.candidates(images)
        least, longest = int(found.lengths[0, 0]), int(found.lengths[0, -1])
        most += longest * len(images)
        for share in _SHARES:
            lengths[share].append(found.above(calibration.threshold(share)).lengths)
        share = _SHARES[len(lengths[_SHARES[0]]) % len(_SHARES)]
        together += int(tokenizer.encode(images, f"mean-codes={share * longest}").lengths.sum()) / share
        count = int(found.after(torch.full((len(images),), found.scores.shape[1] // 3)).lengths[0])
        off += (tokenizer.encode(images, f"codes={count}").lengths != count).tolist()
        for cap in (least, (least + longest) // 2, longest):
            over += int((tokenizer.encode(images, f"max-codes={cap}").lengths > cap).sum())
        finest = psnr(tokenizer.decode(found.after(torch.full((len(images),), found.scores.shape[1]))), images)
        floor = finest.median().item() - 0.5
        reached = psnr(tokenizer.decode(tokenizer.encode(images, f"psnr={floor!r}")), images) >= floor
        reachable += int((finest >= floor).sum())
        missed += int((~reached & (finest >= floor)).sum())
    for share, parts in lengths.items():
        every = torch.cat(parts).double()
        error = every.sum().item() / (share * most) - 1
        # of both sets, calibration's and this one
        deviation = ((2 / len(every)) ** 0.5 * every.std() / every.mean()).item()
        told = f"{error:+.2%}, where so many pictures tell it to ±{deviation:.2%}"
        yield f"mean of {share:.0%} of the most codes, each alone", told, abs(error) <= max(0.005, 2 * deviation)
    error = together / most - 1
    yield "means of batches, encoded together", f"{error:+.2%}", abs(error) <= 0.005
    yield "exact counts", f"{sum(off)} of {len(off)} pictures have others", not any(off)
    yield "caps", f"{over} pictures are above them", over == 0
    yield "floors of PSNR", f"{missed} of {reachable} pictures that can reach them do not", missed == 0


def _files(given: argparse.Namespace) -> Iterator[tuple[str, str, bool]]:
    with tempfile.TemporaryDirectory() as place, open_coders(given.bundle, None, None, "cpu", False) as coders:
        folder, spec = Path(place), coders.opened.model.spec
        counted = [coders.opened.model.encode(images) for images in _crops(given, min(given.files, 2000), 0)]
        coders.tables[:] = [CodeTables.measure(counted, spec)]
        coders.tables[-1].save(_copy(given.bundle, folder / "bundle"))
        sizes = dict.fromkeys(("files", "codes", "estimate", "prior", "tables"), 0.0)
        names: list[str] = []
        for images in _crops(given, given.files, 2):
            written = vltok.compress(folder / "bundle", list(to_bytes(images)), device="cpu").pictures
            for file in written:
                assert file.data is not None
                (folder / f"{len(names)}.vlt").write_bytes(file.data)
                names.append(file.name)
                sizes["files"] += len(file.data)
                sizes["codes"] += sum(map(len, unpack(file.data).sections))
            lengths = float(sum(file.code_length for file in written))
            regions = len(written) * (given.size // spec.factors[0]) ** 2 if spec.gridded else 0
            sizes["estimate"] += fixed_rate_bits(lengths, regions, spec) / 8
        threads = max(torch.get_num_threads() // 2, 1) if torch.get_num_threads() > 1 else 2
        command = [sys.executable, "-m", "tests.acceptance", str(folder / "bundle"), "--read", str(folder)]
        told = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True, check=False
        )
        same = told.stdout.strip() == _digest(folder)
        yield f"{len(names)} files, read and written with {threads} threads", told.stderr[-200:] or "the same", same
        estimate, whole, codes = (sizes[what] / len(names) for what in ("estimate", "files", "codes"))
        less = f"{estimate:.1f} bytes; files take {whole:.1f}, {codes:.1f} of them for codes"
        # of a picture of a few codes, the header is longer than what can be saved
        yield "log2 v a code and log2 K a region", less, (whole if estimate > _HEADERS_COUNT_LESS else codes) < estimate
        if given.prior is not None:
            (images,) = _crops(given, min(given.prior_files, _BATCH), 3)
            for kind, options in (("tables", {}), ("prior", {"prior": given.prior})):
                found = vltok.compress(folder / "bundle", list(to_bytes(images)), device="cpu", **options).pictures
                back = vltok.decompress(folder / "bundle", [file.data for file in found], device="cpu", **options)
                assert not back.failed
                sizes[kind] = sum(sum(map(len, unpack(file.data or b"").sections)) for file in found)
            saved = 1 - sizes["prior"] / sizes["tables"]
            yield f"{len(images)} files under a prior against tables", f"{saved:.1%} less", saved > 0


def _copy(bundle: Path, folder: Path) -> Path:
    """A bundle that may be written."""
    vltok.load_tokenizer(bundle, device="cpu").save_pretrained(folder)
    return folder


def _digest(folder: Path) -> str:
    every = hashlib.sha256()
    for number in range(len(list(folder.glob("*.vlt")))):
        every.update((folder / f"{number}.vlt").read_bytes())
    return every.hexdigest()


def _read_back(given: argparse.Namespace) -> int:
    """Decode every file, encode its codes again, and print the digest of all."""
    every = hashlib.sha256()
    with open_coders(given.bundle, None, None, "cpu", False) as coders:
        coder = coders.to_compress()
        pictures = coders.pictures(coder)
        for number in range(len(list(given.read.glob("*.vlt")))):
            file = unpack((given.read / f"{number}.vlt").read_bytes())
            tiles: list[Codes] = [tile.codes for tile in pictures.decode(file, coder, len(file.sections))]
            assert isinstance(coder, TableCoder)
            every.update(pack(file.header, coder.encode(tiles)))
    print(every.hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
