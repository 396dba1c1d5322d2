"""Measuring a tokenizer, a codec or a prior on a source of pictures, one batch in memory at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.stats import wasserstein_distance
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.evaluation.coders import Coder
from vltok.figures.examples import Example
from vltok.interfaces import Prior, SamplingConfig, Tokenizer
from vltok.measures.distances import SetDistances
from vltok.measures.feature_distance import feature_distance
from vltok.measures.features import FeatureNetwork
from vltok.measures.gathering import gather
from vltok.measures.likelihood import Likelihood
from vltok.measures.pixels import to_bytes
from vltok.measures.quality import Quality
from vltok.measures.region_errors import RegionErrors
from vltok.measures.values import Value, mean_value, pooled_psnr
from vltok.pictures.exporting import ExportLoader
from vltok.pictures.images import ExportSource, ImageBatch
from vltok.sequences.statistics import CodeCounts


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found.

    Attributes:
        images: How many pictures were measured, over all processes.
        pixels: A hash of their pixels, in order.
        values: The figures.
        codes: What the codes look like; empty for a codec.
        keys: What names each picture.
        per_image: The figures of each picture, `[n]`, by name.
        examples: The first pictures of this process.
    """

    images: int
    pixels: str
    values: Mapping[str, Value]
    codes: Mapping[str, Any]
    keys: list[str]
    per_image: Mapping[str, Float[np.ndarray, " n"]]
    examples: list[Example]


@dataclass(frozen=True)
class Share:
    """The part of the pictures that this process takes.

    Attributes:
        rank: Which process this is.
        world_size: How many there are.
        batch_size: Pictures that are in memory at the same time.
        workers: Processes that decode pictures.
        report: Is told of every so many pictures that are done.
    """

    rank: int = 0
    world_size: int = 1
    batch_size: int = 32
    workers: int = 0
    report: Callable[[int], None] = lambda count: None

    def of(self, count: int) -> range:
        """Which of so many pictures: consecutive ones."""
        return range(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def batches(self, source: ExportSource) -> Iterator[ImageBatch]:
        """This process's pictures.

        Raises:
            UserError: They cannot be read.
        """
        for batch in ExportLoader(source, [self.of(source.pictures)], self.batch_size, self.workers):
            if batch.images is not None:
                yield batch.images
            self.report(len(batch.places) + len(batch.skipped))


def measure_reconstruction(
    coder: Coder,
    spec: CodeSpec | None,
    source: ExportSource,
    share: Share,
    quality: Quality,
    network: FeatureNetwork | None = None,
    fixed: Coder | None = None,
    examples: int = 16,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Measured:
    """Measure what a coder spends on pictures, and what they lose by it.

    Args:
        coder: What is measured.
        spec: Of its codes; None for a codec.
        source: The pictures.
        share: Which of them this process takes, and how.
        quality: What is measured on each.
        network: Gives the features of the distances between the pictures and their reconstructions; on `device`.
        fixed: Codes of fixed length, whose error in each region is compared with the granularity that the region got
            (Figure 5); for codes on a grid.
        examples: How many of the first pictures to keep.
        device: Where features are computed.
        seed: Sets the resamples of confidence intervals.

    Raises:
        UserError: There is no picture, or the coder does not take them.
    """
    distances = None if network is None else SetDistances(network.dimension, device)
    counts = None if spec is None else CodeCounts.none(spec)
    regions = RegionErrors()
    keys, digests, kept = [], [], []
    columns: dict[str, list[np.ndarray]] = {}
    clock = _Clock()
    for batch in share.batches(source):
        pixels = to_bytes(batch.images)
        with clock.timing(len(pixels)):
            coded = coder(pixels)
        found = {name: values.cpu() for name, values in quality(coded.pixels.to(device), pixels.to(device)).items()}
        found["bits_per_pixel"] = coded.bits / pixels[0, 0].numel()
        if coded.codes is not None:
            found["length"] = coded.codes.lengths.float()
            counts += CodeCounts.of(coded.codes.validate(spec), spec, pixels[:, 0].numel())
        if distances is not None:
            original, decoded = network(pixels.to(device)), network(coded.pixels.to(device))
            distances.update(original, real=True)
            distances.update(decoded, real=False)
            if original.maps:
                found[f"feature_distance/{network.name}"] = feature_distance(decoded, original).cpu()
        beside = None if fixed is None else fixed(pixels).pixels
        if beside is not None:
            correlations = regions.update(coded.codes.require_grains(), beside, pixels, spec.factors[0])
            found["error_correlation"] = torch.from_numpy(correlations)
        for name, values in found.items():
            columns.setdefault(name, []).append(values.double().numpy())
        keys += batch.keys
        digests += _digests(pixels)
        for place in range(min(examples - len(kept), len(pixels))):
            codes = None if coded.codes is None else coded.codes[place]
            figures = {name: values[place].item() for name, values in found.items()}
            example = Example(batch.keys[place], pixels[place], coded.pixels[place], codes, figures)
            kept.append(example if beside is None else replace(example, fixed=beside[place]))
    keys = gather(keys)
    if not keys:
        raise UserError("there is no picture to measure")
    names = max(gather([list(columns)]), key=len)
    per_image = {name: np.concatenate(gather(columns.get(name, []))) for name in names}
    values = {name: mean_value(found, seed) for name, found in per_image.items() if name != "error_correlation"}
    values["psnr_pooled"] = pooled_psnr(values["mse"])
    if fixed is not None:
        values |= regions.values(per_image["error_correlation"], seed)
    described: Mapping[str, Any] = {}
    if counts is not None:
        described = describe_codes(CodeCounts.total(gather([counts]), spec), spec)
        values["codebook_usage"] = Value(described["codebook_usage"]["any"])
        values["codebook_perplexity"] = Value(described["codebook_perplexity"]["any"])
    if distances is not None:
        values |= named_distances(distances.compute(seed), network.name, "r")
    values["seconds_per_image"] = clock.value()
    return Measured(len(keys), _fingerprint(digests), values, described, keys, per_image, kept)


@torch.inference_mode()
def measure_prior(
    prior: Prior,
    tokenizer: Tokenizer,
    source: ExportSource,
    count: int,
    sampling: SamplingConfig,
    share: Share,
    network: FeatureNetwork | None = None,
    examples: int = 16,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Measured:
    """Measure how well a prior knows the codes of pictures, and how far what it draws lies from them.

    What is drawn and what the pictures hold have names apart: `length_of_samples` and `length_of_data`, and
    `seconds_per_sample`, where `measure_reconstruction` has `seconds_per_image` for coding. Mean lengths have
    confidence intervals. Likelihoods have none: `Prior.loss` gives means over a packed batch, of which no resample of
    images can be taken.

    Args:
        prior: In evaluation mode, on `device`.
        tokenizer: The one whose codes it models; on `device`.
        source: Held-out pictures.
        count: How many to draw, over all processes; with classes, each in turn.
        sampling: How tokens are drawn.
        share: Which pictures this process takes and draws, and how.
        network: Gives the features of the distances between the pictures and what is drawn; on `device`.
        examples: How many of the first draws to keep.
        device: Where to compute.
        seed: Sets what is drawn, and the resamples of confidence intervals.

    Raises:
        UserError: There is no picture, its codes are not those that the prior was built for, or it has no class, or
            one that the prior does not know.
    """
    spec = tokenizer.spec
    distances = None if network is None else SetDistances(network.dimension, device)
    likelihood, data, digests = Likelihood(), CodeCounts.none(spec), []
    for batch in share.batches(source):
        codes = replace(tokenizer.encode(batch.images.to(device)), labels=_labels(batch, prior, device))
        likelihood.update(prior.loss(codes.validate(prior.spec)), codes)
        data += CodeCounts.of(codes.to("cpu"), spec, batch.images[:, 0].numel())
        pixels = to_bytes(batch.images)
        digests += _digests(pixels)
        if distances is not None:
            distances.update(network(pixels.to(device)), real=True)
    drawn, kept, clock = CodeCounts.none(spec), [], _Clock()
    mine = share.of(count)
    for start in range(mine.start, mine.stop, share.batch_size):
        wanted = min(share.batch_size, mine.stop - start)
        each = torch.arange(start, start + wanted, device=device)
        with clock.timing(wanted):
            generator = torch.Generator().manual_seed(seed)
            codes = prior.sample(
                wanted if prior.classes is None else each % prior.classes, sampling, generator, first_image=start
            )
            pixels = to_bytes(tokenizer.decode(codes)).cpu()
        codes = codes.to("cpu").validate(spec)
        drawn += CodeCounts.of(codes, spec, pixels[:, 0].numel())
        if distances is not None:
            distances.update(network(pixels.to(device)), real=False)
        for place in range(min(examples - len(kept), wanted)):
            figures = {"length": float(codes.lengths[place])}
            kept.append(Example(f"{start + place:06d}", None, pixels[place], codes[place], figures))
        share.report(wanted)
    data, drawn = (CodeCounts.total(gather([counts]), spec) for counts in (data, drawn))
    images = int(data.lengths.sum())
    if not images:
        raise UserError("there is no picture to measure")
    figures = Likelihood.total(gather([likelihood.sums])).figures()
    described = {"drawn": describe_codes(drawn, spec), "data": describe_codes(data, spec)}
    lengths = [_spread(counts) for counts in (drawn, data)]
    values = {
        **{name: Value(value) for name, value in figures.items()},
        "length_of_samples": _mean_length(lengths[0], seed),
        "length_of_data": _mean_length(lengths[1], seed),
        "length_distance": Value(wasserstein_distance(*(places for places, _ in lengths), *(n for _, n in lengths))),
    }
    if distances is not None:
        values |= named_distances(distances.compute(seed), network.name)
    values["seconds_per_sample"] = clock.value()
    return Measured(images, _fingerprint(digests), values, described, [], {}, kept)


def describe_codes(counts: CodeCounts, spec: CodeSpec) -> dict[str, Any]:
    """The statistics of codes, with the perplexity of their use: exp of its entropy, overall and per granularity."""
    names = [str(factor) for factor in spec.factors]
    perplexity = {"any": _perplexity(counts.uses.sum(0))}
    if spec.gridded:
        perplexity |= {name: _perplexity(uses) for name, uses in zip(names, counts.uses, strict=True)}
    return {**counts.statistics(spec), "codebook_perplexity": perplexity}


def named_distances(found: Mapping[str, Value], network: str, prefix: str = "") -> dict[str, Value]:
    """The names of distances: published ones for Inception alone, that of the network for every other.

    Args:
        found: What `SetDistances.compute` gave.
        network: The name of the network.
        prefix: ``r`` for reconstructions, as in rFID.
    """
    published = {"frechet": f"{prefix}fid", "kernel": f"{prefix}kid", "score": f"{prefix}inception_score"}
    if network == "inception":
        return {published.get(name, name): value for name, value in found.items()}
    spelt = {"frechet": "frechet_distance", "kernel": "kernel_distance", "score": "class_score"}
    return {f"{spelt.get(name, name)}/{network}": value for name, value in found.items()}


def _digests(pixels: UInt8[Tensor, "b 3 H W"]) -> list[bytes]:
    """A hash of each image's size and pixels."""
    size = repr(tuple(pixels.shape[1:])).encode()
    return [hashlib.sha256(size + image.tobytes()).digest() for image in pixels.numpy()]


def _fingerprint(digests: list[bytes]) -> str:
    """One hash of those of all processes' images."""
    return hashlib.sha256(b"".join(gather(digests))).hexdigest()


def _labels(batch: ImageBatch, prior: Prior, device: torch.device | str) -> Int[Tensor, " b"] | None:
    if prior.classes is None:
        return None
    if batch.labels is None:
        raise UserError(f"this prior knows {prior.classes} classes, but the pictures have none: give data with classes")
    strange = batch.labels[(batch.labels < 0) | (batch.labels >= prior.classes)]
    if len(strange):
        raise UserError(
            f"a picture has label {int(strange[0])}, but this prior knows {prior.classes} classes, labelled 0 to "
            f"{prior.classes - 1}: give data with the classes that it was trained on"
        )
    return batch.labels.to(device)


def _perplexity(uses: Int[np.ndarray, " v"]) -> float:
    if not uses.any():
        return 0.0
    shares = uses[uses > 0] / uses.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _spread(counts: CodeCounts) -> tuple[np.ndarray, np.ndarray]:
    places = counts.lengths.nonzero()[0]
    return places, counts.lengths[places]


def _mean_length(spread: tuple[np.ndarray, np.ndarray], seed: int) -> Value:
    return mean_value(np.repeat(*spread).astype(np.float64), seed)


class _Clock:
    """Seconds that a process takes for an image, without its first batch, which warms up, where there are others."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._images: list[int] = []
        self._start = 0.0

    def timing(self, images: int) -> "_Clock":
        self._images.append(images)
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds.append(time.perf_counter() - self._start)

    def value(self) -> Value:
        pairs = list(zip(self._seconds, self._images, strict=True))
        # each process leaves its own first batch out, and one that had no image says nothing
        pairs = gather(pairs[1:] or pairs)
        return Value(sum(seconds for seconds, _ in pairs) / max(sum(images for _, images in pairs), 1))
