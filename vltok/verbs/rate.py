"""`vltok.rate`: which rates a tokenizer can be asked for, and what pictures lose at each."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from vltok.compression.table_coder import TableCoder, measured_bits
from vltok.compression.tables import CodeTables
from vltok.errors import UserError, whole_number
from vltok.evaluation.data_used import DataUsed
from vltok.evaluation.rate_curves import RateCurve, codes_of_rates, measure_rates
from vltok.evaluation.rate_means import RateMeans
from vltok.evaluation.rate_report import write_curve
from vltok.evaluation.records import environment
from vltok.files import alone_in, check_folder, written_whole
from vltok.interfaces import Steerable, Tokenizer
from vltok.io.bundle_files import CALIBRATION
from vltok.nn.precision import computing
from vltok.paths import read_path
from vltok.pictures.exporting import export_batches
from vltok.pictures.images import ExportSource, ImageBatch, ImageData
from vltok.pictures.sizes import in_words
from vltok.rates import RateCalibration
from vltok.tokenizers.rate import calibrate
from vltok.verbs.counting import Progress, counted
from vltok.verbs.inputs import Opened, open_pictures, open_tokenizer

_LOG = logging.getLogger(__name__)
_REMEDY = "measure a copy of it that you may write"


@dataclass(frozen=True, eq=False)
class RateMeasurement:
    """What `rate` found.

    Attributes:
        calibration: Which threshold gives which mean code length; None where the tokenizer cannot be steered.
        tables: How often its codes occur; `compress` takes them.
        curve: What held-out pictures cost and lose at each rate.
        data: Which pictures these are.
        stored: The files that the bundle got.
        files: Those of the folder that was asked for, the page to look at last.
    """

    calibration: RateCalibration | None
    tables: CodeTables
    curve: RateCurve
    data: DataUsed
    stored: tuple[Path, ...]
    files: tuple[Path, ...]


def rate(
    tokenizer: Tokenizer | str | os.PathLike,
    data: ImageData | str | Mapping[str, Any] | None = None,
    out: str | os.PathLike | None = None,
    *,
    training_pictures: int = 4000,
    pictures: int = 1000,
    points: int = 11,
    codecs: bool = True,
    examples: int = 6,
    batch_size: int | None = None,
    device: str | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> RateMeasurement:
    """Calibrate the rates that a tokenizer can be asked for, and measure its rate-distortion curve.

    Training pictures say which threshold gives which mean code length, and how often codes occur. Both are stored in
    the bundle's folder (rate.json, code_tables.safetensors), where encoding with a rate and `vltok compress` find them.
    Held-out pictures, which neither training nor calibration has seen, then say what each rate costs and loses. A
    folder receives curve.json, curve.png, and rate.html with a slider; the bundle keeps the means (rate_curve.json),
    which the report of `vltok evaluate` shows. In Python, a tokenizer object gets its `calibration`.

    Args:
        tokenizer: A tokenizer's bundle, a folder or `user/name`; in Python, a tokenizer too.
        data: The pictures, the name of a source of them, or its `class_path` and `init_args`; the embedded
            photographs by default.
        out: The folder that receives the curve; none is written without it.
        training_pictures: How many training pictures are calibrated on at most: the more, the nearer other pictures of
            their kind come to the mean that is asked for.
        pictures: How many held-out pictures are measured at most; codes of as many training pictures are counted.
        points: At how many rates the held-out pictures are measured.
        codecs: Whether JPEG, WebP, AVIF, JPEG 2000 and JPEG XL are measured beside it, as far as Pillow writes them.
        examples: How many pictures rate.html shows.
        batch_size: Pictures at the same time; the data's by default.
        device: `cpu`, `cuda` or `cuda:1`; by default a GPU where there is one.
        trust: Whether the bundle may name more than registered components, and be downloaded.
        progress: Is told how many pictures are done, and how many there are; each counts as often as it is coded.

    Raises:
        UserError: An argument is wrong, pictures or the bundle are not to be had, or nothing can be written.
    """
    whole_number("--training-pictures", training_pictures, 1)
    whole_number("--pictures", pictures, 1)
    whole_number("--points", points, 2)
    whole_number("--examples", examples, 0)
    if batch_size is not None:
        whole_number("--batch-size", batch_size, 1)
    folder = None if out is None else check_folder("--out", out)
    data, _ = open_pictures("photos" if data is None else data)
    training = _Chosen.of(data, "train", training_pictures, batch_size)
    to_count = _Chosen.of(data, "train", min(training_pictures, pictures), batch_size)
    held_out = _Chosen.of(data, "val", pictures, batch_size)
    alone = contextlib.nullcontext() if folder is None else alone_in(folder)
    with alone, open_tokenizer(tokenizer, device, trust=trust) as opened, torch.inference_mode():
        model, spec, where = opened.model, opened.model.spec, opened.device
        bundle = None if isinstance(tokenizer, Tokenizer) else _writable(read_path(tokenizer))
        if bundle is not None:
            CodeTables.stored(bundle, spec)  # damaged ones are told before the work
        why = _why_fixed(opened, to_count)
        passes = [*([] if why else [training]), to_count, held_out]
        report = counted(progress, sum(len(chosen.places) for chosen in passes))
        calibration = None
        if why is None:
            images = (batch.images.to(where) for batch in training.batches(report))
            with computing(where):
                calibration = calibrate(model, images, _described(data))
        else:
            _LOG.warning("'%s' cannot be steered, so that its own choice alone is measured: %s", opened.name, why)
        tables = CodeTables.measure(codes_of_rates(model, calibration, to_count.batches(report), where), spec)
        if isinstance(tokenizer, Tokenizer):
            model.calibration = calibration
        stores: list[Callable[[Path], Path]] = [tables.save]
        if calibration is not None:
            stores.insert(0, partial(_store_calibration, text=calibration.text(opened.fingerprint)))
        stored = _store(bundle, *stores)
        files_of = partial(measured_bits, coder=TableCoder(tables, spec))
        curve = measure_rates(model, files_of, calibration, held_out.batches(report), points, codecs, examples, where)
        means = RateMeans.of(curve, f"{len(curve.keys)} held-out pictures of {_kind(data)}")
        if stored:
            stored += _store(bundle, partial(means.store, tokenizer=opened.fingerprint))
        measured_on = None if calibration is None else {"pictures": calibration.pictures, "data": calibration.data}
        about = {
            "tokenizer": opened.subject,
            "calibration": measured_on,
            "data": data.description(),
            "environment": environment(where),
        }
        used = DataUsed.described(data.description(), "val", len(curve.keys))
        files = () if folder is None else write_curve(folder, curve, about, spec)
    return RateMeasurement(calibration, tables, curve, used, stored, files)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Pictures of a source.

    Attributes:
        source: It.
        places: Where they stand in it.
        batch_size: How many are read at once.
        workers: Processes that decode them.
    """

    source: ExportSource
    places: Sequence[int]
    batch_size: int
    workers: int

    @classmethod
    def of(cls, data: ImageData, split: Literal["train", "val"], most: int, batch_size: int | None) -> _Chosen:
        """At most so many of a split, drawn once for all: neighbours may be of one kind.

        Raises:
            UserError: There are none.
        """
        source = data.export_source(split)
        count = source.pictures
        if not count:
            raise UserError(f"the data has no pictures of its split '{split}': calibration and curve need both")
        places = range(count) if count <= most else sorted(random.Random(0).sample(range(count), most))
        return cls(source, places, batch_size or data.batch_size, data.workers)

    def batches(self, report: Callable[[int], None] = lambda count: None) -> Iterator[ImageBatch]:
        """They; `report` is told of every so many."""
        for batch in export_batches(self.source, [self.places], self.batch_size, self.workers):
            if batch.images is not None:
                yield batch.images
            report(len(batch.places) + len(batch.skipped))


def _why_fixed(opened: Opened[Tokenizer], pictures: _Chosen) -> str | None:
    """Why a tokenizer cannot be steered; None where it can."""
    tokenizer = opened.model
    if not isinstance(tokenizer, Steerable):
        return f"{type(tokenizer).__name__} takes no rate"
    if tokenizer.spec.granularities == 1:
        return "it has a single granularity, so that all pictures of a size have as many codes"
    first = next(replace(pictures, places=pictures.places[:1], workers=0).batches(), None)
    if first is not None:
        images = first.images.to(opened.device)
        tokenizer.encode(images)  # where it does not take pictures of this size, this says so
        try:
            _ = tokenizer.candidates(images).scores
        except UserError as error:
            return str(error)
    return None


def _described(data: ImageData) -> str:
    """What pictures are, but not where: bundles are published."""
    return f"{_kind(data)}, of the training split"


def _kind(data: ImageData) -> str:
    return f"{data.description().get('kind', type(data).__name__)}, {', '.join(map(in_words, data.sizes))} pixels"


def _writable(bundle: Path) -> Path | None:
    """A bundle's folder; None where nothing can be stored in it, which a warning says before the work."""
    if bundle.is_dir() and os.access(bundle, os.W_OK):
        return bundle
    what = "is read-only" if bundle.is_dir() else "is a repository"
    _LOG.warning("the rates are stored nowhere, for '%s' %s: %s", bundle, what, _REMEDY)
    return None


def _store(bundle: Path | None, *stores: Callable[[Path], Path]) -> tuple[Path, ...]:
    """Write what was measured into a bundle's folder; where that cannot be, a warning says so."""
    stored: list[Path] = []
    if bundle is None:
        return ()
    try:
        for store in stores:
            stored.append(store(bundle))
    except OSError as error:
        _LOG.warning("'%s' cannot be written (%s): %s", error.filename or bundle, error.strerror, _REMEDY)
    return tuple(stored)


def _store_calibration(bundle: Path, text: str) -> Path:
    with written_whole(bundle / CALIBRATION) as file:
        file.write_text(text, encoding="utf-8")
    return bundle / CALIBRATION
