"""`vltok.sample`: pictures that a prior draws."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from vltok.arguments import fields_of
from vltok.codes import Codes
from vltok.drawing.config import SamplingConfig, SamplingOptions, at_rate, options_for
from vltok.drawing.sampler import Sampler
from vltok.errors import UserError, check_seed, whole_number
from vltok.figures.coding_maps import draw_coding_map, magnified
from vltok.figures.grids import sample_grid
from vltok.files import check_folder, written_whole
from vltok.interfaces import Kept, Prior, Tokenizer
from vltok.io.places import places_of
from vltok.launchers import Share
from vltok.measures.pixels import to_bytes, to_picture
from vltok.nn.precision import computing
from vltok.rates import Rate
from vltok.sequences.export import CodeExport
from vltok.sequences.manifest import CodeManifest, ExportSettings
from vltok.sequences.shards import CodeSample, codes_of
from vltok.sequences.statistics import CodeCounts
from vltok.verbs.coding import samples_of
from vltok.verbs.counting import Progress, counted
from vltok.verbs.inpainting import kept_of
from vltok.verbs.inputs import Opened, open_prior, open_tokenizer, tokenizer_of
from vltok.verbs.labels import choose_labels
from vltok.verbs.prompts import choose_embeddings, choose_prompts
from vltok.verbs.sizes import regions_of

_PICTURES, _MAPS, _GRID = "pictures", "coding_maps", "grid.png"
_KINDS = (_PICTURES, _MAPS)
_OF_GRID = 64
_MAP_WIDTH = 256


@dataclass(frozen=True, eq=False)
class Sampled:
    """What `sample` gave.

    Attributes:
        codes: The codes that were drawn, on the CPU; None where they were written to a folder.
        pictures: Their pictures, `[b 3 H W]`; None where they were written to a folder.
        manifest: Of a folder's codes; None without a folder, or where other processes or parts still write theirs.
        drawn: How many were drawn by this call.
        missing: The parts of a folder that are not yet whole, from 1, where there are several.
    """

    codes: Codes | None
    pictures: UInt8[Tensor, "b 3 H W"] | None
    manifest: CodeManifest | None
    drawn: int
    missing: tuple[int, ...] = ()


def sample(
    prior: Prior | str | os.PathLike,
    count: int = 16,
    out: str | os.PathLike | None = None,
    *,
    tokenizer: Tokenizer | str | os.PathLike | None = None,
    sampling: SamplingOptions | None = None,
    size: str | int | Sequence[int] | None = None,
    rate: Rate | str | None = None,
    seed: int = 0,
    labels: str | Sequence[int | str] | None = None,
    prompts: str | os.PathLike | Sequence[str] | None = None,
    embeddings: str | os.PathLike | np.ndarray | Tensor | None = None,
    keep: Kept | Sequence[str | os.PathLike | Image.Image] | None = None,
    batch_size: int = 16,
    coding_maps: bool = True,
    format: Literal["webdataset", "parquet"] = "webdataset",
    shard_size: int = 500,
    device: str | None = None,
    trust: bool = False,
    overwrite: bool = False,
    part: str | None = None,
    progress: Progress | None = None,
) -> Sampled:
    """Draw pictures: a prior draws code sequences, its tokenizer decodes them.

    A seed draws the same pictures in batches and shards of any size. Killed at any moment and given again, the same
    command or call goes on from the last whole shard, to as many pictures as it asks for by then. Under torchrun or
    srun, each process takes its share; so does each of several independent jobs that are given a part, and the last one
    to end writes the grid.

    Args:
        prior: A prior's bundle, a folder or `user/name`; in Python, a prior too.
        count: How many pictures to draw; more can be added to a folder.
        out: The folder that receives pictures, coding maps, codes and a grid; in Python, codes and pictures are given
            back without it, and nothing is written.
        tokenizer: The tokenizer's bundle, if not where the prior's bundle says; in Python, a tokenizer too.
        sampling: How tokens are drawn: the prior's own options, as in `prior.sampling(top_k=5)`, or a
            `vltok.SamplingConfig`.
        size: Height and width of the pictures in pixels, as in `48x80`, or one number for both, where the prior was
            trained on pictures of several sizes; beyond those the quality is not promised. In Python, `(48, 80)` too.
        rate: How many codes the images have: ``codes=400``, ``max-codes=400`` or ``ratios=8:0.5,16:0.5``; see
            `vltok.Rate`.
        seed: Sets the random numbers.
        labels: Classes, in turn, by number or name: `207,fruit`, or `all`, or `none`; by default all, where there are
            any. In Python, a list such as `[207, "fruit"]` too.
        prompts: A file of texts, one a line, that say what is drawn, in turn; in Python, a list of texts too.
        embeddings: A file `.npy` of embeddings, one a row, that say what is drawn, in turn; in Python, an array or a
            tensor `[n e]` too.
        keep: A mask and a picture of one size: what is white in the mask stays as the tokenizer codes it, and the rest
            is drawn anew, as often as `count` says. A region stays if all its pixels do. In Python, a
            `vltok.interfaces.Kept` too, such as a grain map.
        batch_size: Pictures that are drawn at the same time.
        coding_maps: Whether a folder receives coding maps.
        format: Of a folder's codes: tar files, or Parquet.
        shard_size: Sequences of a folder's shard.
        device: `cpu`, `cuda` or `cuda:1`; by default where the prior is, or a GPU where there is one.
        trust: Whether bundles may name more than registered components: see `load_prior`.
        overwrite: Whether to replace another export in `out`, which stays until the new one is whole.
        part: Which of several independent jobs this is, and how many there are, such as ``3/64``: every command is the
            same but for that. One that failed is given again.
        progress: Is told how many pictures are drawn.

    Raises:
        UserError: An argument is wrong, the prior or its tokenizer cannot be loaded, or nothing can be written.
    """
    for key, value in (("--count", count), ("--batch-size", batch_size), ("--shard-size", shard_size)):
        whole_number(key, value, 1)
    check_seed("--seed", seed)
    folder = None if out is None else _checked(out)
    share = Share.find(os.environ, part)
    if folder is None and part is not None:
        raise UserError(f"--part {part}: parts are of a folder that several jobs write: give out")
    tokenizer = tokenizer_of(prior, tokenizer, trust)
    with (
        open_prior(prior, device, trust=trust, local_rank=share.local_rank) as drawer,
        open_tokenizer(tokenizer, drawer.device, trust=trust) as decoder,
        computing(drawer.device),
    ):
        kind = drawer.model.sampling
        sampling = kind() if sampling is None else options_for(kind, type(drawer.model).__name__, sampling)
        sampling = sampling if rate is None else at_rate(sampling, Rate.of(rate))
        regions = regions_of(size, drawer.model)
        if None not in (regions, sampling.regions) and regions != sampling.regions:
            raise UserError(f"--size {size} is of {regions} regions, sampling.regions {sampling.regions}: give one")
        regions = regions or sampling.regions
        sampling = replace(sampling, regions=regions)
        classes = choose_labels(labels, drawer.model.classes, count, drawer.class_names)
        texts = choose_prompts(prompts, drawer.model.conditioning)
        vectors = choose_embeddings(embeddings, drawer.model.conditioning)
        wanted: Int[Tensor, " b"] | Float[Tensor, "b e"] | Sequence[str] | None = classes
        if vectors is not None:
            wanted = vectors[torch.arange(count) % len(vectors)]
        elif texts is not None:
            wanted = [texts[place % len(texts)] for place in range(count)]
        stays = keep if isinstance(keep, Kept) else kept_of(keep, drawer.model, decoder, regions) if keep else None
        if regions is None and stays is None and drawer.model.asks_for_grid:
            raise UserError(
                "--size is not given, but this prior draws pictures of any size: say which, in multiples of "
                f"{drawer.model.spec.factors[0]} pixels, as in --size 64x96 (height x width)"
            )
        drawing = _Drawing(drawer.model.sampler(sampling, stays), decoder, seed, wanted, batch_size)
        if folder is None:
            codes = drawing.codes(range(count), counted(progress, count))
            parts = [drawing.pictures(codes[start : start + batch_size]) for start in range(0, count, batch_size)]
            return Sampled(codes, to_bytes(torch.cat(parts)), None, count)
        drawn = {
            "--prior": drawer.fingerprint,
            # every option of vltok's own priors is named, whatever this one has, as in samples of version 0.1
            **{
                f"--{name.replace('_', '-')}": value
                for name, value in {**fields_of(SamplingConfig()), **fields_of(replace(sampling, regions=None))}.items()
            },
            "--seed": seed,
            "--labels": labels if labels is None or isinstance(labels, str) else ",".join(map(str, labels)),
            "--coding-maps": coding_maps,
            # of drawing without texts, a folder of before says nothing of them
            **({} if texts is None else {"--prompts": texts}),
        }
        if vectors is not None:
            drawn["--embeddings"] = hashlib.sha256(vectors.numpy().tobytes()).hexdigest()
        if regions is not None:
            drawn["--size"] = "x".join(str(side * decoder.model.spec.factors[0]) for side in regions)
        if stays is not None:
            drawn["--keep"] = stays.digest
        settings = ExportSettings(
            tokenizer=decoder.fingerprint,
            format=format,
            shard_size=shard_size,
            batch_size=batch_size,
            precision=sampling.precision,
            pictures=count,
            input=hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest(),
            options=json.loads(json.dumps({**drawn, "--count": count})),
        )
        with contextlib.closing(
            CodeExport(
                folder / "codes",
                decoder.model.spec,
                settings,
                None if classes is None else drawer.class_names,
                share,
                () if isinstance(tokenizer, Tokenizer) else places_of(tokenizer, folder / "codes"),
                overwrite=overwrite,
                grows=True,
                pictures={kind: folder / kind for kind in _KINDS},
            )
        ) as export:
            pending = export.pending()
            left = sum(len(export.pictures(shard)) for shard in pending)
            mine = sum(len(export.pictures(shard)) for shard in export.mine)
            report = counted(progress, mine, mine - left)
            for shard in pending:
                kept, counts = export.kept(shard)
                images = export.pictures(shard)[len(kept) :]
                report(len(kept))
                codes = drawing.codes(images, report)
                kinds = {kind: export.folder_of(kind) for kind in _KINDS if kind == _PICTURES or coding_maps}
                counts += CodeCounts.of(codes, decoder.model.spec, drawing.write(codes, images, kinds))
                keys = [f"{image:06d}" for image in images]
                export.write(shard, [*kept, *samples_of(codes, images, keys, codes)], counts)
            manifest = export.finish()
            missing = export.missing_parts()
        if manifest is not None:
            drawing.write_grid(manifest, folder)
        return Sampled(None, None, manifest, left, missing)


@dataclass(frozen=True, eq=False)
class _Drawing:
    """What pictures follow from."""

    sampler: Sampler
    tokenizer: Opened[Tokenizer]
    seed: int
    wanted: Int[Tensor, " b"] | Float[Tensor, "b e"] | Sequence[str] | None
    batch_size: int

    def codes(self, images: range, report: Callable[[int], None]) -> Codes:
        """The codes of some of the pictures, on the CPU."""
        return self.sampler(
            len(images) if self.wanted is None else self.wanted[images.start : images.stop],
            torch.Generator().manual_seed(self.seed),
            self.batch_size,
            images.start,
            report,
        ).to("cpu")

    @torch.inference_mode()
    def pictures(self, codes: Codes) -> Float[Tensor, "b 3 H W"]:
        """The pictures of a batch of codes, on the CPU."""
        with computing(self.tokenizer.device):
            return self.tokenizer.model.decode(codes.to(self.tokenizer.device)).float().clamp(-1, 1).cpu()

    def write(self, codes: Codes, images: range, folders: Mapping[str, Path]) -> int:
        """Write the pictures of codes, and coding maps where there is a folder for them; the number of pixels."""
        spec, pixels = self.tokenizer.model.spec, 0
        with ThreadPoolExecutor() as writers:  # encoding PNGs takes longer than decoding codes
            for start in range(0, len(images), self.batch_size):
                batch = codes[start : start + self.batch_size]
                decoded = self.pictures(batch)
                pixels += decoded[:, 0].numel()
                kinds = {_PICTURES: decoded}
                if _MAPS in folders and spec.gridded:
                    kinds[_MAPS] = draw_coding_map(magnified(decoded, _MAP_WIDTH), batch.require_grains(), spec)
                for kind, pictures in kinds.items():
                    paths = [folders[kind] / f"{image:06d}.png" for image in images[start : start + self.batch_size]]
                    for _ in writers.map(_save, paths, map(to_picture, to_bytes(pictures))):
                        pass  # an error in a thread is raised here
        return pixels

    def write_grid(self, manifest: CodeManifest, out: Path) -> None:
        """Write the first pictures of a folder at one look."""
        samples: list[CodeSample] = []
        for shard in manifest.shards:
            samples += manifest.read_samples(out / "codes", shard)
            if len(samples) >= _OF_GRID:
                break
        codes = codes_of(samples[:_OF_GRID], manifest.labelled, manifest.described)
        spec = self.tokenizer.model.spec
        _save(out / _GRID, sample_grid(self.pictures(codes), codes, spec, classes=manifest.classes))


def _checked(out: str | os.PathLike) -> Path:
    folder = check_folder("--out", out)
    others = sorted({path.name for path in folder.iterdir()} - {*_KINDS, "codes", _GRID}) if folder.is_dir() else []
    if others:
        raise UserError(f"--out '{folder}' holds other files (such as {others[0]}): give an empty folder")
    return folder


def _save(path: Path, picture: Image.Image) -> None:
    try:
        with written_whole(path) as file:
            picture.save(file)
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}") from error
