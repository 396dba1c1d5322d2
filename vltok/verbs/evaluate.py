"""`vltok.evaluate`: what a tokenizer, a prior or a codec achieves, with the protocol under which it was measured."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor, nn

from vltok.codes import CodeSpec
from vltok.drawing.config import SamplingOptions
from vltok.errors import UserError, check_seed
from vltok.evaluation.adaptation import adaptive
from vltok.evaluation.codec_rates import find_quality
from vltok.evaluation.coders import Codec, CodecCoder, Coder, TokenizerCoder, coarsest_codes
from vltok.evaluation.distances import check_images
from vltok.evaluation.evaluations import Evaluation
from vltok.evaluation.features import FeatureNetwork, feature_network, weights_hash
from vltok.evaluation.gathering import gather, joined
from vltok.evaluation.measurement import Measurement, ProcessShare
from vltok.evaluation.priors import measure_prior
from vltok.evaluation.reconstruction import QUALITIES, each_distance, measure_reconstruction
from vltok.evaluation.records import Record, RecordKind, environment, package_version
from vltok.files import alone_in, check_folder
from vltok.interfaces import Ordered, Prior, SamplingConfig, Tokenizer
from vltok.io.bundles import class_names, fingerprint, load_prior, load_tokenizer, prior_fingerprint
from vltok.io.places import find_tokenizer
from vltok.launchers import find_rank
from vltok.loading.classes import same_classes
from vltok.losses.perceptual import LPIPS
from vltok.nn.modes import evaluating
from vltok.nn.precision import full_float32
from vltok.pictures.images import ExportSource, ImageData
from vltok.verbs.counting import Progress, counted
from vltok.verbs.devices import choose_device
from vltok.verbs.inputs import open_pictures

_COARSEST = "the tokenizer itself, coarsest granularity"
#: A bundle, by its path.
BundlePath = str | os.PathLike[str]
COUNT = 1000
#: The arguments of `check_evaluation`.
CHECKED = (
    *("tokenizer", "prior", "codec", "quality", "bits_per_pixel", "fixed", "lpips", "count", "sampling", "seed"),
    *("batch_size", "examples"),
)


def evaluate(
    tokenizer: BundlePath | Tokenizer | None = None,
    data: ImageData | str | Mapping[str, Any] | None = None,
    *,
    prior: BundlePath | Prior | None = None,
    codec: Codec | None = None,
    quality: int | None = None,
    bits_per_pixel: float | None = None,
    fixed: BundlePath | Tokenizer | None = None,
    split: Literal["all", "train", "val"] = "val",
    features: str | None = None,
    lpips: bool = False,
    count: int = COUNT,
    sampling: SamplingOptions | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    examples: int = 16,
    device: str | None = None,
    trust: bool = False,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a tokenizer or a codec on held-out pictures, or a prior on their codes and on what it draws.

    Processes that torchrun has started measure together, and the first one writes.

    Args:
        tokenizer: What is measured; with `prior`, the tokenizer of its codes, which by default is looked for.
        data: The pictures, the name of a source of them, or its `class_path` and `init_args`; the embedded
            photographs by default.
        prior: What is measured.
        codec: What is measured, at a `quality`, or at the one whose rate comes nearest to `bits_per_pixel` from below.
        quality: The codec's, from 1 to 95 (jpeg) or 100 (webp).
        bits_per_pixel: The most that the codec may take, in the mean over the pictures.
        fixed: A tokenizer of fixed length, whose error map is compared with the coding map; by default the measured one
            itself, with its coarsest granularity everywhere.
        split: Which pictures; ``val`` are held out.
        features: The network that tells sets of images apart, one of `vltok.evaluation.features.NETWORKS`.
        lpips: Whether to measure LPIPS, which needs VGG16's weights.
        count: How many pictures a prior draws.
        sampling: How it draws them: the prior's own options, or a `vltok.SamplingConfig`.
        seed: Sets what is drawn, and the resamples of confidence intervals.
        batch_size: Pictures at the same time; the data's by default.
        examples: How many pictures the report shows.
        device: ``cpu``, ``cuda`` or ``cuda:1``; by default a GPU where there is one.
        trust: Whether bundles may name more than registered components, and be downloaded.
        out: The folder that receives the figures and the report; nothing is written by default.
        progress: Is told how many pictures are done, and how many there are.

    Raises:
        UserError: Arguments do not go together, pictures, a bundle or weights are not to be had, or nothing can be
            written.
    """
    sampling = sampling or SamplingConfig()
    kind = check_evaluation(**{name: value for name, value in locals().items() if name in CHECKED})
    folder = None if out is None else check_folder("--out", out)
    rank, world_size, local_rank = find_rank(os.environ)
    place = choose_device(device, local_rank)
    data, _ = open_pictures("photos" if data is None else data)
    source = data.export_source(split)
    if features is not None:
        check_images(min(source.pictures, count) if kind == "prior" else source.pictures)
    network = None if features is None else feature_network(features).to(place)
    share = ProcessShare(rank, world_size, batch_size or data.batch_size, data.workers)
    total = len(share.of(source.pictures)) + (len(share.of(count)) if kind == "prior" else 0)
    share = dataclasses.replace(share, report=counted(progress, total))
    conditions = _Conditions(source, data.classes, share, network, examples, place, seed, trust)
    writes = folder is not None and rank == 0
    with alone_in(folder) if writes else contextlib.nullcontext():
        with (
            joined(rank, world_size, place),
            full_float32(),
            warnings.catch_warnings(),
            contextlib.ExitStack() as modes,
        ):
            for model in (tokenizer, prior, fixed):
                if isinstance(model, nn.Module):  # a bundle's is in evaluation mode
                    modes.enter_context(evaluating(model))
            # the kernel distance needs all features; their memory is what the user pays for it
            warnings.filterwarnings("ignore", message="Metric `.*` will save all extracted features")
            if kind == "prior":
                found = _prior(prior, tokenizer, count, sampling, conditions)
            elif kind == "tokenizer":
                found = _tokenizer(tokenizer, fixed, lpips, conditions)
            else:
                found = _codec(codec, quality, bits_per_pixel, lpips, conditions)
            skipped = gather(data.skipped)
        measured = found.measurement
        protocol = {
            "data": {"pixels": measured.pixels, "split": split, "size": data.size, "images": measured.images},
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
            "skipped": skipped,
        }
        record = Record(kind, found.subject, measured.values, measured.codes, protocol, where)
        evaluation = Evaluation(record, measured, found.spec, found.drawing_order)
        if writes:
            evaluation = dataclasses.replace(evaluation, files=tuple(evaluation.write(folder)))
    return evaluation


def check_evaluation(
    *,
    tokenizer: object,
    prior: object,
    codec: object,
    quality: int | None,
    bits_per_pixel: float | None,
    fixed: object,
    lpips: bool,
    count: int,
    sampling: Any,
    seed: int,
    batch_size: int | None,
    examples: int,
) -> RecordKind:
    """See that the arguments of `evaluate` go together; nothing is read or built.

    Returns:
        What is measured.

    Raises:
        UserError: They do not.
    """
    kind: RecordKind = "prior" if prior is not None else "codec" if codec is not None else "tokenizer"
    both = codec is not None and (prior is not None or tokenizer is not None)
    if both or (kind == "tokenizer" and tokenizer is None):
        raise UserError("say what is measured: one of --tokenizer BUNDLE, --prior BUNDLE or --codec jpeg --quality 50")
    if (quality is not None) + (bits_per_pixel is not None) != (kind == "codec"):
        raise UserError(
            "--codec takes one of --quality and --bits-per-pixel, and nothing else does: --codec jpeg --quality 50"
        )
    if bits_per_pixel is not None and not bits_per_pixel > 0:
        raise UserError(f"--bits-per-pixel must be positive, not {bits_per_pixel:g}")
    if fixed is not None and kind != "tokenizer":
        raise UserError("--fixed is compared with a tokenizer's coding maps: it belongs to --tokenizer")
    if kind == "prior" and lpips:
        raise UserError("--lpips compares reconstructions with pictures: it belongs to --tokenizer or --codec")
    if kind != "prior":
        # an evaluation's config.yaml names every option, so that defaults are no sign that one was given
        given = ["--count"] if count != COUNT else []
        given += [
            f"--sampling.{field.name}"
            for field in dataclasses.fields(SamplingConfig)
            if getattr(sampling, field.name, field.default) != field.default
        ]
        if given:
            says = "says" if len(given) == 1 else "say"
            raise UserError(f"{' and '.join(given)} {says} how a prior draws: that belongs to --prior")
    for name, number in {"--count": count, "--batch-size": batch_size}.items():
        if number is not None and number < 1:
            raise UserError(f"{name} must be at least 1, not {number}")
    check_seed("--seed", seed)
    if examples < 0:
        raise UserError(f"--examples must be at least 0, not {examples}")
    return kind


@dataclass(frozen=True)
class _Conditions:
    """What every kind of evaluation is done under."""

    source: ExportSource
    classes: Sequence[str] | None
    share: ProcessShare
    network: FeatureNetwork | None
    examples: int
    device: str
    seed: int
    trust: bool


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What was measured, on what, and what the figures depend on besides the pictures and the feature network."""

    subject: dict[str, Any]
    measurement: Measurement
    spec: CodeSpec | None
    protocol: dict[str, Any]
    drawing_order: Int[Tensor, " t"] | None = None


def _tokenizer(
    given: BundlePath | Tokenizer, fixed: BundlePath | Tokenizer | None, lpips: bool, under: _Conditions
) -> _Outcome:
    tokenizer = _loaded(given, under)
    beside, described = None, None
    if fixed is None and adaptive(tokenizer):
        coarsest = partial(coarsest_codes, tokenizer, tokenizer.spec)
        beside, described = TokenizerCoder(tokenizer, under.device, coarsest), _COARSEST
    elif fixed is not None:
        other = _loaded(fixed, under)
        if other.spec.granularities > 1:
            raise UserError(
                f"--fixed '{fixed}' has the factors {list(other.spec.factors)}: name a tokenizer with a single one"
            )
        if not tokenizer.spec.gridded:
            raise UserError(f"--fixed: the codes of '{given}' lie on no grid, so that it has no coding map")
        beside, described = TokenizerCoder(other, under.device), _subject(fixed, other)["fingerprint"]
    coder = TokenizerCoder(tokenizer, under.device)
    outcome = _reconstructed(coder, tokenizer.spec, _subject(given, tokenizer), beside, lpips, under)
    return dataclasses.replace(outcome, protocol={**outcome.protocol, "fixed": described})


def _codec(
    codec: Codec, quality: int | None, bits_per_pixel: float | None, lpips: bool, under: _Conditions
) -> _Outcome:
    subject: dict[str, Any] = {"codec": codec, "quality": quality}
    if bits_per_pixel is not None:
        quietly = dataclasses.replace(under.share, report=lambda count: None)
        quality = find_quality(codec, bits_per_pixel, under.source, quietly)
        subject = {"codec": codec, "quality": quality, "asked_bits_per_pixel": bits_per_pixel}
    return _reconstructed(CodecCoder(codec, quality), None, subject, None, lpips, under)


def _reconstructed(
    coder: Coder, spec: CodeSpec | None, subject: dict[str, Any], fixed: Coder | None, lpips: bool, under: _Conditions
) -> _Outcome:
    figures, described = dict(QUALITIES), None
    if lpips:
        network = LPIPS()
        network.load()
        figures["lpips"] = each_distance(network.to(under.device).eval())
        described = {"name": "vgg16", "weights": weights_hash(network)}
    batches = under.share.batches(under.source)
    measured = measure_reconstruction(
        coder, spec, batches, figures, under.network, fixed, under.examples, under.device, under.seed
    )
    return _Outcome(subject, measured, spec, {"lpips": described})


def _prior(
    given: BundlePath | Prior,
    tokenizer: BundlePath | Tokenizer | None,
    count: int,
    sampling: SamplingOptions,
    under: _Conditions,
) -> _Outcome:
    prior = given
    if not isinstance(prior, Prior):
        prior = load_prior(given, under.device, trust=under.trust)
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = find_tokenizer(given, tokenizer, trust=under.trust)
    elif tokenizer is None:
        raise UserError("a prior that is no bundle does not say where the tokenizer of its codes is: give tokenizer")
    if prior is not given and prior.classes is not None:
        same_classes("--data", (os.fspath(given), class_names(given)), ("the pictures", under.classes))
    coding = _loaded(tokenizer, under)
    measured = measure_prior(
        prior.to(under.device),
        coding,
        under.source,
        count,
        sampling,
        under.share,
        under.network,
        under.examples,
        under.device,
        under.seed,
    )
    order = None
    if measured.examples and coding.spec.gridded and isinstance(prior, Ordered):
        order = prior.drawing_order(measured.examples[0].codes.to(under.device)).cpu()
    subject = {**_subject(given, prior), "tokenizer": _subject(tokenizer, coding)["fingerprint"]}
    drawn = {"count": count, "sampling": {**asdict(SamplingConfig()), **asdict(sampling)}, "seed": under.seed}
    return _Outcome(subject, measured, coding.spec, {"drawn": drawn}, order)


def _loaded(given: BundlePath | Tokenizer, under: _Conditions) -> Tokenizer:
    if isinstance(given, Tokenizer):
        return given.to(under.device)
    return load_tokenizer(given, under.device, trust=under.trust)


def _subject(given: BundlePath | Tokenizer | Prior, model: Tokenizer | Prior) -> dict[str, Any]:
    """What a record says of a model; one that is no bundle has no fingerprint."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if given is model:
        return {"path": type(model).__name__, "fingerprint": None, "parameters": parameters}
    hashed = prior_fingerprint(given) if isinstance(model, Prior) else fingerprint(given)
    return {"path": str(given), "fingerprint": hashed, "parameters": parameters}


def _described(network: FeatureNetwork) -> dict[str, str]:
    package = f"{network.package} {package_version(network.package)}"
    return {"name": network.name, "weights": weights_hash(network), "package": package}
