"""`vltok sample`: pictures that a prior draws.

```
samples/
  pictures/000000.png     what was drawn
  coding_maps/000000.png  where its codes went
  codes/                  the code sequences, as 'vltok tokenize' writes them
  grid.png                the first of them at one look
```
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import typing
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Literal

import docstring_parser
import numpy as np
import torch
from jaxtyping import Int
from jsonargparse import ArgumentParser, Namespace
from PIL import Image
from torch import Tensor

from vltok.cli.options import OVERWRITE, TRUST
from vltok.cli.progress import progress
from vltok.codes import Codes
from vltok.errors import UserError, check_seed
from vltok.figures.coding_maps import draw_coding_map
from vltok.figures.grids import sample_grid
from vltok.files import check_folder, written_whole
from vltok.interfaces import SamplingConfig, Tokenizer
from vltok.io.bundles import fingerprint, load_prior, load_tokenizer, prior_fingerprint
from vltok.io.places import find_tokenizer, places_of
from vltok.io.recipes import parse_options
from vltok.launchers import find_rank
from vltok.measures.pixels import to_bytes, to_picture
from vltok.nn.precision import computing
from vltok.sequences.export import CodeExport
from vltok.sequences.manifest import CodeManifest, ExportSettings
from vltok.sequences.shards import CodeSample, codes_of
from vltok.sequences.statistics import CodeCounts
from vltok.verbs.devices import choose_device

_DESCRIPTION = """\
Draw pictures: a prior draws code sequences, its tokenizer decodes them. Killed at any moment and given again, the same
command goes on from the last whole shard. A seed draws the same pictures in batches and shards of any size. Under
torchrun or srun, each process takes its part.
"""
_PICTURES, _MAPS, _GRID = "pictures", "coding_maps", "grid.png"
_KINDS = (_PICTURES, _MAPS)
_OF_GRID = 64
_MAP_WIDTH = 256


def run(arguments: list[str]) -> None:
    """Run `vltok sample` with what follows the verb.

    Raises:
        UserError: An argument is wrong, the prior or its tokenizer cannot be loaded, or nothing can be written.
    """
    options = parse_options(_parser(), arguments)
    for key in ("count", "batch_size", "shard_size"):
        if options[key] < 1:
            raise UserError(f"--{key.replace('_', '-')} must be at least 1, not {options[key]}")
    check_seed("--seed", options.seed)
    out = check_folder("--out", options.out)
    others = sorted({path.name for path in out.iterdir()} - {*_KINDS, "codes", _GRID}) if out.is_dir() else []
    if others:
        raise UserError(f"--out '{out}' holds other files (such as {others[0]}): give an empty folder")
    _sample(options)


def choose_labels(text: str | None, classes: int | None, count: int) -> Int[Tensor, " b"] | None:
    """The class of each picture: those that are named, in turn.

    Args:
        text: ``207,360``, ``all`` or ``none``; None for all where there are any.
        classes: How many the prior knows, or None.
        count: How many pictures.

    Returns:
        None for pictures of no class.

    Raises:
        UserError: There is no such class.
    """
    if text == "none" or (text is None and classes is None):
        return None
    if classes is None:
        raise UserError(f"--labels is '{text}', but this prior knows no classes: leave it out")
    if text in (None, "all"):
        return torch.arange(count) % classes
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < classes for part in parts):
        raise UserError(
            f"--labels must be numbers from 0 to {classes - 1}, as in 207,360, or 'all' or 'none', not '{text}'"
        )
    named = torch.tensor([int(part) for part in parts])
    return named[torch.arange(count) % len(named)]


def _sample(options: Namespace) -> None:
    rank, world_size, local_rank = find_rank(os.environ)
    device = choose_device(options.device, local_rank)
    sampling = SamplingConfig(**{field.name: options[field.name] for field in fields(SamplingConfig)})
    bundle = find_tokenizer(options.prior, options.tokenizer, trust=options.trust)
    prior = load_prior(options.prior, device, trust=options.trust)
    tokenizer = load_tokenizer(bundle, device, trust=options.trust)
    labels = choose_labels(options.labels, prior.classes, options.count)
    drawn = {
        "--prior": prior_fingerprint(options.prior),
        **{f"--{name.replace('_', '-')}": value for name, value in asdict(sampling).items()},
        "--seed": options.seed,
        "--labels": options.labels,
        "--coding-maps": options.coding_maps,
    }
    settings = ExportSettings(
        tokenizer=fingerprint(bundle),
        format=options.format,
        shard_size=options.shard_size,
        batch_size=options.batch_size,
        precision=sampling.precision,
        pictures=options.count,
        input=hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest(),
        options=json.loads(json.dumps({**drawn, "--count": options.count})),
    )
    out = Path(options.out)
    folder = out / "codes"
    places = places_of(bundle, folder)
    export = CodeExport(
        folder,
        tokenizer.spec,
        settings,
        None,
        rank,
        world_size,
        places,
        overwrite=options.overwrite,
        grows=True,
        pictures={kind: out / kind for kind in _KINDS},
    )
    start = time.monotonic()
    try:
        pending = export.pending()
        left = sum(len(export.pictures(shard)) for shard in pending)
        mine = sum(len(export.pictures(shard)) for shard in export.shards[rank::world_size])
        purpose = "sample" if world_size == 1 else f"sample, process {rank} of {world_size}"
        with progress(purpose, mine, done=mine - left) as report, computing(device):
            for shard in pending:
                kept, counts = export.kept(shard)
                images = export.pictures(shard)[len(kept) :]
                codes = prior.sample(
                    len(images) if labels is None else labels[images.start : images.stop].to(device),
                    sampling,
                    torch.Generator().manual_seed(options.seed),
                    options.batch_size,
                    images.start,
                    report,
                ).to("cpu")
                codes.validate(tokenizer.spec)
                kinds = {kind: export.folder_of(kind) for kind in _KINDS if kind == _PICTURES or options.coding_maps}
                pixels = _write_pictures(codes, images, tokenizer, device, options.batch_size, kinds)
                counts += CodeCounts.of(codes, tokenizer.spec, pixels)
                export.write(shard, [*kept, *_samples(codes, images)], counts)
        manifest = export.finish()
    finally:
        export.close()
    if manifest is None:
        print(f"process {rank} of {world_size} is done; the last one to end writes the grid")
        return
    _write_grid(manifest, tokenizer, device, out)
    length = manifest.statistics["length"]
    speed = f", {left / (time.monotonic() - start):.2f} images/s" if left else ""
    print(
        f"{options.count} pictures of {length['mean']:.1f} codes (from {length['minimum']} to {length['maximum']})"
        f"{speed}; written to {out}"
    )


def _write_pictures(
    codes: Codes, images: range, tokenizer: Tokenizer, device: str, batch_size: int, folders: Mapping[str, Path]
) -> int:
    """Write the pictures of codes, and coding maps where there is a folder for them; the number of pixels."""
    pixels = 0
    with ThreadPoolExecutor() as writers:  # encoding PNGs takes longer than decoding codes
        for start in range(0, len(images), batch_size):
            batch = codes[start : start + batch_size]
            decoded = _decode(tokenizer, batch, device)
            pixels += decoded[:, 0].numel()
            kinds = {_PICTURES: decoded}
            if _MAPS in folders and tokenizer.spec.gridded:
                scale = max(1, round(_MAP_WIDTH / decoded.shape[3]))
                beneath = decoded.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
                kinds[_MAPS] = draw_coding_map(beneath, batch.require_grains(), tokenizer.spec)
            for kind, pictures in kinds.items():
                paths = [folders[kind] / f"{image:06d}.png" for image in images[start : start + batch_size]]
                for _ in writers.map(_save, paths, map(to_picture, to_bytes(pictures))):
                    pass  # an error in a thread is raised here
    return pixels


def _write_grid(manifest: CodeManifest, tokenizer: Tokenizer, device: str, out: Path) -> None:
    samples: list[CodeSample] = []
    for shard in manifest.shards:
        samples += manifest.read_samples(out / "codes", shard)
        if len(samples) >= _OF_GRID:
            break
    codes = codes_of(samples[:_OF_GRID])
    _save(out / _GRID, sample_grid(_decode(tokenizer, codes, device), codes, tokenizer.spec))


@torch.inference_mode()
def _decode(tokenizer: Tokenizer, codes: Codes, device: str) -> Tensor:
    with computing(device):
        return tokenizer.decode(codes.to(device)).float().clamp(-1, 1).cpu()


def _samples(codes: Codes, images: range) -> list[CodeSample]:
    ids = np.split(codes.ids.numpy(), codes.lengths.cumsum(0)[:-1].numpy())
    return [
        CodeSample(
            index=image,
            key=f"{image:06d}",
            ids=ids[place],
            grains=None if codes.grains is None else codes.grains[place].numpy(),
            label=None if codes.labels is None else int(codes.labels[place]),
        )
        for place, image in enumerate(images)
    ]


def _save(path: Path, picture: Image.Image) -> None:
    try:
        with written_whole(path) as file:
            picture.save(file)
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}") from error


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok sample", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("--prior", type=str, required=True, help="a prior's bundle: a folder, or user/name")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives everything")
    parser.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    parser.add_argument("--count", type=int, default=16, help="how many pictures to draw; more can be added")
    parser.add_argument("--seed", type=int, default=0, help="sets the random numbers")
    parser.add_argument("--labels", type=str | None, help="classes, in turn: 207,360, or all (the default), or none")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures that are drawn at the same time")
    explained = {entry.arg_name: entry.description for entry in docstring_parser.parse(SamplingConfig.__doc__).params}
    types = typing.get_type_hints(SamplingConfig)
    for field in fields(SamplingConfig):
        option = f"--{field.name.replace('_', '-')}"
        help_text = " ".join(explained[field.name].split()).replace("%", "%%")
        parser.add_argument(option, type=types[field.name], default=field.default, help=help_text)
    parser.add_argument("--tokenizer", type=str | None, help="its bundle, if not where the prior's bundle says")
    parser.add_argument("--coding-maps", type=bool, default=True, help="whether to draw them")
    parser.add_argument("--format", type=Literal["webdataset", "parquet"], default="webdataset", help="of the codes")
    parser.add_argument("--shard-size", type=int, default=500, help="sequences of a shard")
    parser.add_argument("--device", type=str | None, help="'cpu', 'cuda' or 'cuda:1'; a GPU where there is one")
    return parser
