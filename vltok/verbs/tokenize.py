"""`vltok.tokenize`: the code sequences of pictures, as shards that the data `codes` and other trainers read."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vltok.errors import UserError, unknown, whole_number
from vltok.files import check_folder
from vltok.interfaces import Tokenizer
from vltok.io.places import places_of
from vltok.launchers import Share
from vltok.loading.skipping import SkippedPicture
from vltok.nn.precision import PRECISIONS
from vltok.pictures.exporting import export_batches
from vltok.pictures.images import SPLITS, ExportSource, ImageData, TrainingViews
from vltok.rates import Rate
from vltok.sequences.export import CodeExport
from vltok.sequences.manifest import CodeManifest, ExportSettings
from vltok.sequences.shards import CodeSample
from vltok.sequences.statistics import CodeCounts
from vltok.tokenizers.rate import encoder_at
from vltok.verbs.coding import encode, samples_of
from vltok.verbs.compiling import compiled
from vltok.verbs.counting import Progress, counted
from vltok.verbs.inputs import Opened, digest_of, open_pictures, open_tokenizer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokenized:
    """What `tokenize` gave.

    Attributes:
        folder: Where the shards are.
        manifest: What they hold; None where other processes or parts still write theirs.
        new: Whether there was something to do.
        missing: The parts that are not yet whole, from 1, where there are several.
    """

    folder: Path
    manifest: CodeManifest | None
    new: bool
    missing: tuple[int, ...] = ()


def tokenize(
    tokenizer: Tokenizer | str | os.PathLike,
    data: ImageData | str | Mapping[str, Any],
    out: str | os.PathLike,
    *,
    split: Literal["all", "train", "val"] = "all",
    crops: int | None = None,
    flip: bool = False,
    rate: Rate | str | None = None,
    format: Literal["webdataset", "parquet"] = "webdataset",
    shard_size: int = 2000,
    batch_size: int | None = None,
    device: str | None = None,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    compile: bool = False,
    trust: bool = False,
    overwrite: bool = False,
    part: str | None = None,
    progress: Progress | None = None,
) -> Tokenized:
    """Write the code sequences of pictures as shards.

    Killed at any moment and given again, the same command or call goes on from the last whole shard; the result is what
    an undisturbed one writes. Under torchrun or srun, each process takes its share; so does each of several independent
    jobs that are given a part, and the last one to end writes the manifest.

    Args:
        tokenizer: A tokenizer's bundle, a folder or `user/name`; in Python, a tokenizer too.
        data: The pictures: a data module, the name of one, or its `class_path` and `init_args`.
        out: The folder that receives the shards and `codes.json`.
        split: All pictures, or those that training sees, or those that are held out.
        crops: Random crops of each picture, with the split `train`: a prior learns more from them than from the one in
            the middle. They do not depend on the workers. The data `photos` has `train_crops` instead.
        flip: Whether half of these crops are mirrored.
        rate: How many codes pictures get, such as ``codes=400``; see `vltok.Rate`.
        format: Tar files, for the data `codes` and for webdataset; or Parquet, for Hugging Face datasets.
        shard_size: Pictures of a shard.
        batch_size: Pictures encoded at once; by default the data's.
        device: `cpu`, `cuda` or `cuda:1`; by default where the tokenizer is, or a GPU where there is one.
        precision: What to compute in.
        compile: Whether to compile encoder and decoder with torch.compile, for long runs on a GPU: it takes minutes, so
            that fewer than 100 batches are coded as without, and gained nothing on the CPU where it was measured.
        trust: Whether the bundle may name more than registered components: see `load_tokenizer`.
        overwrite: Whether to replace another export in `out`, which stays until the new one is whole.
        part: Which of several independent jobs this is, and how many there are, such as ``3/64``: every command is the
            same but for that. One that failed is given again.
        progress: Is told how many pictures are done.

    Raises:
        UserError: An argument is wrong, pictures cannot be read, or codes cannot be written; finished shards stay.
    """
    for key, value in (("--shard-size", shard_size), ("--batch-size", batch_size), ("--crops", crops)):
        if value is not None:
            whole_number(key, value, 1)
    for key, name, names in (("--split", split, SPLITS), ("--precision", precision, PRECISIONS)):
        if name not in names:
            raise unknown(key, name, names)
    out = check_folder("--out", out)
    pictures, described = open_pictures(data)
    share = Share.find(os.environ, part)
    source = _source(pictures, split, crops, flip)
    views: dict[str, Any] = {} if crops is None else {"--crops": crops, "--flip": flip}
    rate = None if rate is None else Rate.of(rate)
    asked = [] if rate is None else [str(rate)]
    views |= {} if rate is None else {"--rate": str(rate)}
    if compile:  # it rounds otherwise, which a manifest should tell
        views["--compile"] = True
    with open_tokenizer(tokenizer, device, trust=trust, local_rank=share.local_rank) as opened:
        settings = ExportSettings(
            tokenizer=opened.fingerprint,
            format=format,
            shard_size=shard_size,
            batch_size=batch_size or pictures.batch_size,
            precision=precision,
            pictures=source.pictures,
            input=digest_of([type(pictures).__qualname__, source.described, *asked, *source.keys()]),
            options={**described, "--split": split, **views},
        )
        places = () if isinstance(tokenizer, Tokenizer) else places_of(tokenizer, out)
        spec = opened.model.spec
        with contextlib.closing(
            CodeExport(out, spec, settings, pictures.classes, share, places, overwrite=overwrite)
        ) as export:
            new = not export.finished
            if new and (share.rank == 0 or share.parts > 1):
                shards, processes = len(export.shards), share.processes
                together = f" in {processes} {'parts' if share.parts == processes else 'processes'}"
                shown = together if processes > 1 else ""
                _LOG.info("%d pictures, %d shards, on %s%s", source.pictures, shards, opened.device, shown)
                if shards < processes:
                    _LOG.warning("%d of them get no shard: with a smaller --shard-size all do", processes - shards)
            pending = export.pending()
            left = sum(len(export.pictures(shard)) for shard in pending)
            mine = sum(len(export.pictures(shard)) for shard in export.mine)
            if left < mine and pending:
                _LOG.info("going on from %d pictures that are done", mine - left)
            report = counted(progress, mine, mine - left)
            # whether to compile follows from all shards, so that a run that goes on decides as before
            with compiled(opened.model, compile and bool(pending), mine // settings.batch_size):
                write_codes(opened, source, export, rate=rate, workers=pictures.workers, report=report)
            return Tokenized(out, export.finish(), new, export.missing_parts())


def _source(pictures: ImageData, split: Literal["all", "train", "val"], crops: int | None, flip: bool) -> ExportSource:
    if crops is None:
        if flip:
            raise UserError("--flip mirrors random crops: say how many of each picture (--crops 4)")
        return pictures.export_source(split)
    if split != "train":
        raise UserError(f"--crops {crops} are of training pictures, not of --split {split}: give --split train")
    if not isinstance(pictures, TrainingViews):
        raise UserError(
            f"--crops {crops}: {type(pictures).__name__} has no such crops; photos has --data.train_crops instead"
        )
    return pictures.training_views(crops, flip)


def write_codes(
    opened: Opened[Tokenizer],
    source: ExportSource,
    export: CodeExport,
    *,
    rate: Rate | None = None,
    workers: int,
    report: Callable[[int], None],
) -> None:
    """Write the shards of an export that are left for this process.

    Batches are those of the export's settings, whoever encodes them and whenever.

    Args:
        opened: The tokenizer.
        source: The pictures.
        export: Where their codes go.
        rate: How many codes pictures get, such as ``codes=400``; see `vltok.Rate`.
        workers: Subprocesses that decode pictures.
        report: Is told of every so many pictures that are done.

    Raises:
        UserError: The pictures cannot be read, do not suit the tokenizer, or the shards cannot be written. Shards
            that were finished stay.
    """
    spec = opened.model.spec
    encoder = encoder_at(opened.model, rate)
    pending = export.pending()
    batch_size = export.settings.batch_size
    batches = export_batches(source, [export.pictures(shard) for shard in pending], batch_size, workers)
    with ThreadPoolExecutor(max_workers=1) as writer:  # a shard is written while the next one is encoded
        writing: Future | None = None
        for shard in pending:
            samples: list[CodeSample] = []
            counts, skipped = CodeCounts.none(spec), list[SkippedPicture]()
            left = len(export.pictures(shard))
            while left:
                batch = next(batches)
                left -= len(batch.places) + len(batch.skipped)
                if batch.images is not None:
                    images = batch.images.images
                    codes = encode(encoder, images, export.settings.precision, opened.device)
                    codes.validate(spec)
                    samples += samples_of(codes, batch.places, batch.images.keys, batch.images)
                    counts += CodeCounts.of(codes, spec, pixels=images[:, 0].numel())
                skipped += batch.skipped
                report(len(batch.places) + len(batch.skipped))
            samples.sort(key=lambda sample: sample.index)  # pictures of several sizes come in parts
            if writing is not None:
                writing.result()
            writing = writer.submit(export.write, shard, samples, counts, skipped)
        if writing is not None:
            writing.result()
