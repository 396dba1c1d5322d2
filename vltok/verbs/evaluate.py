"""`vltok.evaluate`: what a tokenizer, a prior or a codec achieves, with the protocol under which it was measured."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vltok.arguments import fields_of
from vltok.codes import CodeSpec
from vltok.compression.tables import CodeTables
from vltok.drawing.config import SamplingOptions
from vltok.errors import UserError, unknown, whole_number
from vltok.evaluation.adaptation import adaptive
from vltok.evaluation.codec_rates import find_quality
from vltok.evaluation.codecs import Codec
from vltok.evaluation.coders import BitsOfFiles, CodecCoder, Coder, TokenizerCoder, coarsest_codes
from vltok.evaluation.distances import check_images
from vltok.evaluation.evaluations import Evaluation
from vltok.evaluation.features import FeatureNetwork, feature_network, weights_hash
from vltok.evaluation.gathering import Seen, gather_items, joined
from vltok.evaluation.measurement import Measurement, ProcessShare
from vltok.evaluation.parts import EvaluationParts
from vltok.evaluation.priors import measure_prior
from vltok.evaluation.rate_means import RateMeans
from vltok.evaluation.reconstruction import QUALITIES, measure_reconstruction
from vltok.evaluation.records import Record, environment, package_version
from vltok.evaluation.values import Value
from vltok.extras import remedy
from vltok.figures.examples import Example
from vltok.files import alone_in, check_folder
from vltok.interfaces import Adaptive, Ordered, Prior, SamplingConfig, Tokenizer
from vltok.launchers import find_rank, part_of
from vltok.loading.classes import same_classes
from vltok.losses.perceptual import LPIPS, each_distance
from vltok.nn.precision import full_float32
from vltok.pictures.images import SPLITS, ExportSource, ImageData
from vltok.rates import Rate
from vltok.tokenizers.rate import encoder_at
from vltok.verbs.asked_evaluation import asked_of
from vltok.verbs.compiling import compiled
from vltok.verbs.counting import Progress, counted
from vltok.verbs.devices import choose_device
from vltok.verbs.evaluation_options import check_evaluation
from vltok.verbs.generator_figures import GeneratorFigures
from vltok.verbs.inputs import open_pictures, open_prior, open_tokenizer, tokenizer_of

_LOG = logging.getLogger(__name__)
_COARSEST = "the tokenizer itself, coarsest granularity"


def evaluate(
    tokenizer: Tokenizer | str | os.PathLike | None = None,
    data: ImageData | str | Mapping[str, Any] | None = None,
    *,
    prior: Prior | str | os.PathLike | None = None,
    codec: Codec | None = None,
    quality: int | None = None,
    bits_per_pixel: float | None = None,
    fixed: Tokenizer | str | os.PathLike | None = None,
    rate: Rate | str | None = None,
    split: Literal["all", "train", "val"] = "val",
    features: str | None = None,
    lpips: bool = False,
    probe_prior: bool = False,
    perturb_codes: bool = False,
    count: int = 1000,
    sampling: SamplingOptions | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    examples: int = 16,
    device: str | None = None,
    compile: bool = False,
    trust: bool = False,
    out: str | os.PathLike | None = None,
    part: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a tokenizer or a codec on held-out pictures, or a prior on their codes and on what it draws.

    Every figure carries its protocol. Distances between sets of images need a feature network, which has to be named.
    Processes that torchrun has started measure together, and the first one writes. Independent jobs that are given a
    part leave in the folder what they have seen, and the last one to end puts the figures together: they are those of
    a single process, to the last bit.

    Args:
        tokenizer: A tokenizer's bundle, which is measured; with `prior`, that of the tokenizer of its codes, if not
            where the prior's bundle says. In Python, a tokenizer too.
        data: The pictures, the name of a source of them, or its `class_path` and `init_args`; the embedded
            photographs by default.
        prior: A prior's bundle, which is measured; in Python, a prior too.
        codec: A codec that everybody knows, which is measured.
        quality: The codec's, from 1 to 95 (jpeg) or 100; of jpeg2000 the PSNR in dB that it aims at.
        bits_per_pixel: Instead of a quality: takes that whose mean rate over the pictures is the nearest not above it.
        fixed: The bundle of a tokenizer of fixed length, whose error map is compared with the coding map; by default
            the measured one itself, with its coarsest granularity everywhere.
        rate: How many codes the tokenizer's pictures get, such as ``codes=400``; see `vltok.Rate`.
        split: Which pictures; ``val`` are held out.
        features: The network that tells sets of images apart: inception (FID), efficientnet-lite0, timm:NAME, or
            random:NAME.
        lpips: Whether to measure LPIPS, which needs VGG16's weights.
        probe_prior: Whether to tell how hard the tokenizer's codes are to predict: the bits an image that a small
            prior, the same for every tokenizer, takes after some training on the codes of the training pictures.
        perturb_codes: Whether to tell what reconstructions keep of their quality after some of their codes were
            replaced by near ones.
        count: How many pictures a prior draws.
        sampling: How it draws them: the prior's own options, or a `vltok.SamplingConfig`.
        seed: Sets what is drawn, and the resamples of confidence intervals.
        batch_size: Pictures at the same time; the data's by default.
        examples: How many pictures the report shows.
        device: `cpu`, `cuda` or `cuda:1`; by default a GPU where there is one.
        compile: Whether to compile encoder and decoder with torch.compile, for long runs on a GPU: it takes minutes, so
            that fewer than 100 batches are coded as without, and gained nothing on the CPU where it was measured.
        trust: Whether bundles may name more than registered components, and be downloaded.
        out: The folder that receives the figures and the report; in Python, nothing is written without it.
        part: Which of several independent jobs this is, and how many there are, such as ``3/64``: every command is the
            same but for that. One that failed is given again.
        progress: Is told how many pictures are done, and how many there are.

    Raises:
        UserError: Arguments do not go together, pictures, a bundle or weights are not to be had, or nothing can be
            written.
    """
    given = dict(locals())
    kind = check_evaluation(given)
    if split not in SPLITS:
        raise unknown("--split", split, SPLITS)
    folder = None if out is None else check_folder("--out", out)
    rank, world_size, local_rank = find_rank(os.environ)
    place = choose_device(device, local_rank)
    data, _ = open_pictures("photos" if data is None else data)
    source = data.export_source(split)
    if features is not None:
        check_images(min(source.pictures, count) if kind == "prior" else source.pictures)
    number, jobs = (1, 1) if part is None else part_of(part)
    turn = (number - 1) * world_size + rank
    share = ProcessShare(turn, jobs * world_size, batch_size or data.batch_size, data.workers)
    network = None if features is None else feature_network(features).to(place)
    parts = None
    if part is not None and folder is not None:
        parts = EvaluationParts(folder, jobs, asked_of(given, source, share.batch_size))
        if (there := parts.record()) is not None:
            return _evaluation_of(there, new=False)
        if parts.has(number):
            _LOG.info("part %d of %d has ended before", number, jobs)
            share = dataclasses.replace(share, rank=share.world_size)
    asked = GeneratorFigures(data.export_source("train") if probe_prior else None, perturb_codes)
    measured = len(share.of(source.pictures))
    total = measured + asked.pictures(measured) + (len(share.of(count)) if kind == "prior" else 0)
    share = dataclasses.replace(share, report=counted(progress, total))
    conditions = _Conditions(
        source, data.sizes, data.classes, share, network, examples, place, seed, trust, compile, parts is not None
    )
    with contextlib.ExitStack() as stack:
        if folder is not None and rank == 0 and parts is None:
            stack.enter_context(alone_in(folder))
        stack.enter_context(joined(rank, world_size, place))
        stack.enter_context(full_float32())
        stack.enter_context(warnings.catch_warnings())
        # the kernel distance needs all features; their memory is what the user pays for it
        warnings.filterwarnings("ignore", message="Metric `.*` will save all extracted features")
        if prior is not None:
            seen = _prior(prior, tokenizer, count, sampling or SamplingConfig(), conditions)
        elif codec is not None:
            seen = _codec(codec, quality, bits_per_pixel, lpips, conditions)
        elif tokenizer is not None:
            seen = _tokenizer(tokenizer, fixed, rate, lpips, asked, conditions)
        skipped_by_each = Seen({"skipped": data.skipped}, lambda items: items["skipped"])
        of_all = seen.beside("data", skipped_by_each)
        items = gather_items(of_all.items)
        if parts is not None and folder is not None:
            if rank == 0 and not parts.has(number):
                parts.write(number, items)
            missing = parts.missing()
            if (there := parts.record()) is not None:  # another one has put them together, and cleaned up
                return _evaluation_of(there, new=False)
            if rank > 0 or missing:
                return _evaluation_of(Record(kind, {"path": ""}, {}, {}, {}), missing=missing)
            stack.enter_context(alone_in(folder, -1))
            if (there := parts.record()) is not None:
                return _evaluation_of(there, new=False)
            items = parts.together()
        found, skipped = of_all.conclude(items)
        measurement = found.measurement
        protocol = {
            "data": {"pixels": measurement.pixels, "split": split, "size": data.size, "images": measurement.images},
            "crops": source.described,
            "features": None if network is None else _described(network),
            "precision": "float32",
            "seed": seed,
            "versions": {name: package_version(name) for name in ("torchmetrics", "pillow")},
            **found.protocol,
        }
        where = {
            **environment(place),
            # a description knows of this process's corrupt pictures alone
            "data": {key: value for key, value in data.description().items() if key != "skipped"},
            "skipped": list(skipped),
            **({} if parts is None else {"parts": parts.described}),
        }
        record = Record(kind, found.subject, measurement.values, measurement.codes, protocol, where)
        evaluation = Evaluation(record, measurement, found.spec, found.drawing_order, found.rates)
        if folder is not None and rank == 0:
            evaluation = dataclasses.replace(evaluation, files=tuple(evaluation.write(folder)))
        if parts is not None:
            parts.clean_up()
    return evaluation


def _evaluation_of(record: Record, *, new: bool = True, missing: Sequence[int] = ()) -> Evaluation:
    """An evaluation of which nothing but the record is told."""
    return Evaluation(record, Measurement(0, "", record.values, record.codes), None, new=new, missing=missing)


@dataclass(frozen=True)
class _Conditions:
    """What every kind of evaluation is done under; `apart` where other processes are other jobs."""

    source: ExportSource
    sizes: Sequence[tuple[int, int]]
    classes: Sequence[str] | None
    share: ProcessShare
    network: FeatureNetwork | None
    examples: int
    device: str
    seed: int
    trust: bool
    compile: bool
    apart: bool


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What was measured, on what, and what the figures depend on besides the pictures and the feature network."""

    subject: dict[str, Any]
    measurement: Measurement
    spec: CodeSpec | None
    protocol: dict[str, Any]
    drawing_order: Int[Tensor, " t"] | None = None
    rates: RateMeans | None = None


def _tokenizer(
    given: Tokenizer | str | os.PathLike,
    fixed: Tokenizer | str | os.PathLike | None,
    rate: Rate | str | None,
    lpips: bool,
    asked: GeneratorFigures,
    under: _Conditions,
) -> Seen[_Outcome]:
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_tokenizer(given, under.device, trust=under.trust))
        tokenizer = opened.model
        stack.enter_context(compiled(tokenizer, under.compile, under.source.pictures // under.share.batch_size))
        beside, described = None, None
        if fixed is None and isinstance(tokenizer, Adaptive) and adaptive(tokenizer):
            coarsest = partial(coarsest_codes, tokenizer, tokenizer.spec)
            beside, described = TokenizerCoder(tokenizer, under.device, coarsest), _COARSEST
        elif fixed is not None:
            other = stack.enter_context(open_tokenizer(fixed, under.device, trust=under.trust))
            if other.model.spec.granularities > 1:
                factors = list(other.model.spec.factors)
                raise UserError(f"--fixed '{fixed}' has the factors {factors}: name a tokenizer with a single one")
            if not tokenizer.spec.gridded:
                raise UserError(f"--fixed: the codes of '{given}' lie on no grid, so that it has no coding map")
            beside, described = TokenizerCoder(other.model, under.device), other.fingerprint
        encode = encoder_at(tokenizer, rate)
        coder = TokenizerCoder(tokenizer, under.device, encode)
        files = _bits_of_files(given, tokenizer.spec, "" if rate is None else str(Rate.of(rate)))
        rates = None if isinstance(given, Tokenizer) else RateMeans.stored(given, opened.fingerprint)
        reconstructed = _reconstructed(coder, tokenizer.spec, opened.subject, beside, lpips, under, files)
        generated, protocol = asked.measure(
            tokenizer, encode, under.source, under.share, under.network, under.device, under.seed
        )
    at = {} if rate is None else {"rate": str(Rate.of(rate))}

    def together(found: tuple[_Outcome, dict[str, Value]]) -> _Outcome:
        outcome, values = found
        measurement = dataclasses.replace(outcome.measurement, values={**outcome.measurement.values, **values})
        told = {**outcome.protocol, "fixed": described, **at, **protocol}
        return dataclasses.replace(outcome, measurement=measurement, protocol=told, rates=rates)

    return reconstructed.beside("generated", generated).then(together)


def _bits_of_files(given: Tokenizer | str | os.PathLike, spec: CodeSpec, rate: str) -> BitsOfFiles | None:
    """What the files of `vltok compress` take at a rate, where a bundle says how often its codes occur."""
    tables = [] if isinstance(given, Tokenizer) else CodeTables.stored(given, spec)
    if not tables:
        return None
    try:
        from vltok.compression.table_coder import TableCoder, measured_bits
    except ModuleNotFoundError as error:
        _LOG.warning("the bytes of compressed files are not measured: %s", remedy(error) or error)
        return None
    return partial(measured_bits, rate=rate, coder=TableCoder(tables[-1], spec))


def _codec(
    codec: Codec, quality: int | None, bits_per_pixel: float | None, lpips: bool, under: _Conditions
) -> Seen[_Outcome]:
    asked = {} if bits_per_pixel is None else {"asked_bits_per_pixel": bits_per_pixel}
    if bits_per_pixel is not None:
        quietly = dataclasses.replace(under.share, report=lambda count: None)
        quality = find_quality(codec, bits_per_pixel, under.source, quietly)
    coder = CodecCoder(codec, whole_number("--quality", quality))
    return _reconstructed(coder, None, {"codec": codec, "quality": quality, **asked}, None, lpips, under)


def _reconstructed(
    coder: Coder,
    spec: CodeSpec | None,
    subject: dict[str, Any],
    fixed: Coder | None,
    lpips: bool,
    under: _Conditions,
    files: BitsOfFiles | None = None,
) -> Seen[_Outcome]:
    figures, described = dict(QUALITIES), None
    if lpips:
        network = LPIPS()
        network.load_or("leave --lpips out")
        figures["lpips"] = each_distance(network.to(under.device).eval())
        described = {"name": "vgg16", "weights": weights_hash(network)}
    batches = under.share.batches(under.source)
    examples = under.share.examples(under.examples, under.source.pictures)
    measured = measure_reconstruction(
        coder, spec, batches, figures, under.network, fixed, examples, under.device, under.seed, files
    )
    return measured.then(lambda measurement: _Outcome(subject, measurement, spec, {"lpips": described}))


def _prior(
    given: Prior | str | os.PathLike,
    tokenizer: Tokenizer | str | os.PathLike | None,
    count: int,
    sampling: SamplingOptions,
    under: _Conditions,
) -> Seen[_Outcome]:
    with (
        open_prior(given, under.device, trust=under.trust) as opened,
        open_tokenizer(tokenizer_of(given, tokenizer, under.trust), under.device, trust=under.trust) as coding,
        compiled(coding.model, under.compile, under.source.pictures // under.share.batch_size),
    ):
        prior, spec = opened.model, coding.model.spec
        if under.apart and prior.conditioning.reads:
            raise UserError(
                f"--part: what '{opened.name}' draws follows from the {prior.conditioning.reads} of all pictures: "
                "measure it without, on several devices by torchrun"
            )
        if not isinstance(given, Prior) and prior.classes is not None:
            same_classes("--data", (opened.name, opened.class_names), ("the pictures", under.classes))
        measured = measure_prior(
            prior,
            coding.model,
            under.source,
            count,
            sampling,
            under.sizes,
            under.share,
            under.network,
            under.share.examples(under.examples, count),
            under.device,
            under.seed,
        )
        orders = []
        shown = next(map(Example.from_plain, measured.items["examples"]), None)
        if shown is not None and shown.codes is not None and spec.gridded and isinstance(prior, Ordered):
            orders.append(prior.drawing_order(shown.codes.to(under.device)).cpu().numpy())
    drawn = {"count": count, "sampling": {**fields_of(SamplingConfig()), **fields_of(sampling)}, "seed": under.seed}
    subject = {**opened.subject, "tokenizer": coding.fingerprint}

    def together(found: tuple[Measurement, Sequence[np.ndarray]]) -> _Outcome:
        measurement, orders = found
        order = torch.from_numpy(orders[0]) if orders else None
        return _Outcome(subject, measurement, spec, {"drawn": drawn}, order)

    return measured.beside("order", Seen({"first": orders}, lambda items: items["first"])).then(together)


def _described(network: FeatureNetwork) -> dict[str, str]:
    package = f"{network.package} {package_version(network.package)}"
    return {"name": network.name, "weights": weights_hash(network), "package": package}
