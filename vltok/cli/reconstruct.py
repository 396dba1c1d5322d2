"""`vltok reconstruct`: pictures through a tokenizer and back, with a map of where the codes went."""

import glob
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from PIL import Image

from vltok.cli.options import TRUST
from vltok.errors import UserError, one_line
from vltok.files import alone_in, check_folder, safe_name, written_whole
from vltok.io.recipes import parse_options
from vltok.pictures.decoding import EXTENSIONS, CorruptPicture, decode

_DESCRIPTION = """\
Encode and decode pictures of any size. For each, the folder receives NAME.png, the reconstruction, and NAME.coding.png,
the picture tinted by the granularity of each region, from blue (few codes) to red (many); metrics.json holds the
figures, and whether the codes went where they help, measured on crops of all pictures together. NAME is the picture's
name without its ending, with a number where two pictures share it.
"""
#: Regions of each crop on which adaptation is measured; there are up to four crops of a picture.
_REGIONS = 16


def run(arguments: list[str]) -> None:
    """Run `vltok reconstruct` with what follows the verb.

    Raises:
        UserError: An argument is wrong, or some pictures could not be reconstructed; the others then are.
    """
    options = parse_options(_parser(), arguments)
    out = check_folder("--out", options.out)
    if options.tile < 1:
        raise UserError(f"--tile must be at least 1 pixel, not {options.tile}")
    names = name_outputs(find_pictures(options.images, out), out)
    with alone_in(out):
        _reconstruct(names, options, out)


def find_pictures(given: Sequence[str], out: Path) -> list[Path]:
    """The pictures that are meant: files, those in folders and their sub-folders, and those that a pattern matches.

    Earlier results in `out`, where it lies in one of the folders, are not among them.

    Raises:
        UserError: A path or pattern leads to no picture.
    """
    found: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            matches = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in EXTENSIONS and file.is_file() and out.resolve() not in file.resolve().parents
            ]
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(match) for match in sorted(glob.glob(text, recursive=True)) if Path(match).is_file()]
        if not matches:
            what = "folder holds no picture" if path.is_dir() else "file, folder or pattern leads to no picture"
            raise UserError(f"IMAGES '{text}': this {what}")
        found += matches
    return list({path.resolve(): path for path in found}.values())


def name_outputs(pictures: Sequence[Path], out: Path) -> dict[str, Path]:
    """A name for each picture's results, such that none overwrites another, nor a picture that is read.

    Raises:
        UserError: A result would overwrite a picture that is read.
    """
    sources = {path.resolve() for path in pictures}
    taken: set[str] = set()
    names: dict[str, Path] = {}
    for path in pictures:
        for number in itertools.count(1):
            stem = safe_name(path.stem) or "picture"
            name = stem if number == 1 else f"{stem}-{number}"
            # some file systems do not tell capital letters from small ones
            files = {file.name.lower() for file in _outputs(out, name)}
            if taken.isdisjoint(files):
                break
        taken |= files
        names[name] = path
        for file in _outputs(out, name):
            if file.resolve() in sources:
                raise UserError(f"--out '{out}': the result would overwrite the picture '{file}'; name another folder")
    return names


def _reconstruct(names: dict[str, Path], options: Namespace, out: Path) -> None:
    # --help and wrong arguments are answered without waiting for torch
    import torch

    from vltok.evaluation.adaptation import Crops, adaptation_line, adaptive, measure_adaptation
    from vltok.evaluation.pictures import code_picture, picture_figures
    from vltok.figures.coding_maps import draw_picture_coding_map
    from vltok.io.bundles import fingerprint, load_tokenizer
    from vltok.measures.pixels import to_picture
    from vltok.pictures.transforms import to_bytes_tensor
    from vltok.verbs.devices import choose_device

    device = choose_device(options.device)
    tokenizer = load_tokenizer(options.tokenizer, device, trust=options.trust)
    origin = {"path": options.tokenizer, "fingerprint": fingerprint(options.tokenizer)}
    records: list[dict] = []
    failures: list[dict[str, str]] = []
    crops: list[Crops] = []
    adaptation = None
    try:
        for name, path in names.items():
            try:
                picture = to_bytes_tensor(decode(path))
                coded = code_picture(tokenizer, picture, options.tile, device)
            except (CorruptPicture, UserError, torch.OutOfMemoryError) as error:
                oom = isinstance(error, torch.OutOfMemoryError)
                reason = "out of memory: give a smaller --tile" if oom else str(error)
                failures.append({"source": str(path), "error": reason})
                print(f"vltok: skipped '{one_line(path)}': {one_line(reason)}", file=sys.stderr)
                continue
            reconstruction, coding_map = _outputs(out, name)
            _write(to_picture(coded.reconstruction), reconstruction)
            if coded.grains is not None:
                _write(to_picture(draw_picture_coding_map(picture, coded.grains, tokenizer.spec)), coding_map)
            records.append(
                {"name": name, "source": str(path), **asdict(picture_figures(picture, coded, tokenizer.spec))}
            )
            print(f"{one_line(name)}: {_caption(records[-1])}")
            if adaptive(tokenizer):
                crops.append(Crops.of(picture, tokenizer.divisor))
        count = sum(len(each.images) for each in crops)
        if count:
            figures = measure_adaptation(tokenizer, crops, device, images=count, regions=_REGIONS)
            adaptation = figures.to_dict()
    finally:
        # after an interrupt too: no finished picture goes without its figures
        metrics = {
            "tokenizer": origin,
            "tile": options.tile,
            "mean": _mean(records),
            "adaptation": adaptation,
            "images": records,
            "failed": failures,
        }
        with written_whole(out / "metrics.json") as file:
            file.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if failures:
        paths = ", ".join(f"'{failure['source']}'" for failure in failures)
        raise UserError(f"{len(failures)} of {len(names)} pictures could not be reconstructed: {paths}")
    if adaptation is not None:
        print(f"adaptation: {adaptation_line(adaptation)}")
    print(f"mean of {len(records)}: {_caption(metrics['mean'])}; written to {out}")


def _mean(records: list[dict]) -> dict | None:
    """The mean over the pictures of each figure that is not of their size."""
    if not records:
        return None
    mean = {key: sum(record[key] for record in records) / len(records) for key in ("psnr", "code_length", "bits")}
    ratios = {
        factor: sum(record["ratios"][factor] for record in records) / len(records) for factor in records[0]["ratios"]
    }
    return {**mean, "ratios": ratios}


def _caption(figures: dict) -> str:
    ratios = ", ".join(f"factor {factor}: {share:.0%}" for factor, share in figures["ratios"].items())
    return f"{figures['psnr']:.2f} dB, {figures['code_length']:g} codes{f' ({ratios})' if ratios else ''}"


def _outputs(out: Path, name: str) -> tuple[Path, Path]:
    return out / f"{name}.png", out / f"{name}.coding.png"


def _write(picture: Image.Image, path: Path) -> None:
    with written_whole(path) as file:
        picture.save(file)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok reconstruct", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument(
        "images", nargs="+", type=str, help="pictures, folders of pictures, or quoted patterns such as 'a/**/*.jpg'"
    )
    parser.add_argument(
        "--tokenizer", type=str, required=True, help="the bundle of a tokenizer, as 'vltok fit' writes it"
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the results")
    parser.add_argument(
        "--tile",
        type=int,
        default=1024,
        help="a picture with a longer side, in pixels, is coded in tiles of about equal size, each as a picture of its "
        "own; bounds the memory",
    )
    parser.add_argument("--device", type=str | None, help="'cpu', 'cuda' or 'cuda:1'; a GPU where there is one")
    return parser
