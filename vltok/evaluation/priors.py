"""Measuring a prior: how well it knows the codes of pictures, and how far what it draws lies from them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from scipy.stats import wasserstein_distance
from torch import Tensor

from vltok.codes import Codes
from vltok.drawing.config import SamplingOptions
from vltok.drawing.sampler import Sampler
from vltok.errors import UserError
from vltok.evaluation.distances import SetDistances
from vltok.evaluation.features import FeatureNetwork
from vltok.evaluation.gathering import Items, Seen, gather
from vltok.evaluation.measurement import (
    Measurement,
    ProcessShare,
    describe_codes,
    joint_hash,
    named_distances,
    pixel_digests,
    seconds_each,
    without_warm_up,
)
from vltok.evaluation.values import Value, mean_value
from vltok.figures.examples import Example
from vltok.interfaces import Prior, Tokenizer
from vltok.measures.likelihood import likelihood_figures, likelihood_sums, total_sums
from vltok.measures.pixels import to_bytes
from vltok.pictures.images import ExportSource, ImageBatch
from vltok.processes import world
from vltok.sequences.statistics import CodeCounts


@torch.inference_mode()
def measure_prior(
    prior: Prior,
    tokenizer: Tokenizer,
    source: ExportSource,
    count: int,
    sampling: SamplingOptions,
    sizes: Sequence[tuple[int, int]],
    share: ProcessShare,
    network: FeatureNetwork | None = None,
    examples: int = 16,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Seen[Measurement]:
    """Measure a prior on held-out pictures, and on as many as it shall draw; several processes may do so together.

    What is drawn and what the pictures hold have names apart: `length_of_samples` and `length_of_data`, and
    `seconds_per_sample`, where `measure_reconstruction` has `seconds_per_image` for coding. Mean lengths have
    confidence intervals. Of a prior that reads texts, what it draws has those of the pictures, in turn, and its
    likelihood is also told with the texts of other pictures: texts that matter make the difference. Likelihoods have no
    intervals: `Prior.loss` gives means over a packed batch, of which no resample of
    images can be taken.

    Args:
        prior: In evaluation mode, on `device`.
        tokenizer: The one whose codes it models; on `device`.
        source: Held-out pictures.
        count: How many to draw, over all processes; with classes, each in turn.
        sampling: How tokens are drawn.
        sizes: The heights and widths of the pictures: where `sampling` says no `regions`, as many images of each are
            drawn by a prior of any grid.
        share: Which pictures this process takes and draws, and how.
        network: Gives the features of the distances between the pictures and what is drawn; on `device`.
        examples: How many of its first draws this process keeps.
        device: Where to compute.
        seed: Sets what is drawn, and the resamples of confidence intervals.

    Raises:
        UserError: The codes of a picture are not those that the prior was built for, it has no class, or one that the
            prior does not know; no picture has a text, though the prior reads them; or, when it is concluded, there is
            no picture.
    """
    spec = tokenizer.spec
    distances = SetDistances(device)
    sums: list[dict[str, float]] = []
    with_texts: list[Codes] = []
    data, drawn = CodeCounts.none(spec), CodeCounts.none(spec)
    digests: list[bytes] = []
    for batch in share.batches(source):
        texts = batch.texts or ("",) * len(batch)
        codes = replace(tokenizer.encode(batch.images.to(device)), labels=_labels(batch, prior, device), texts=texts)
        sums.append(likelihood_sums(prior.loss(codes.validate(prior.spec)), codes))
        data += CodeCounts.of(codes.to("cpu"), spec, batch.images[:, 0].numel())
        if prior.conditioning.described:
            with_texts.append(codes.to("cpu"))
        pixels = to_bytes(batch.images)
        digests += pixel_digests(pixels)
        if network is not None:
            distances.update(network(pixels.to(device)), real=True)
    texts_of_each = gather([[text for codes in with_texts for text in codes.require_texts()]])
    prompts = tuple(itertools.chain.from_iterable(texts_of_each))
    if prior.conditioning.described and not any(prompts):
        raise UserError("this prior reads texts, but the pictures have none: give data with texts (data.texts)")
    before = sum(map(len, texts_of_each[: world()[0]]))
    other_texts = _with_other_texts(prior, with_texts, prompts, before, device, seed)
    kept: list[Example] = []
    times: list[tuple[float, int]] = []
    for sampler, start, wanted in _draws(prior, sampling, sizes, share, count):
        each = torch.arange(start, start + wanted, device=device)
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        asked: Int[Tensor, " b"] | list[str] | int = wanted if prior.classes is None else each % prior.classes
        if prompts:
            asked = [prompts[image % len(prompts)] for image in each.tolist()]
        codes = sampler(asked, generator, first_image=start)
        pixels = to_bytes(tokenizer.decode(codes)).cpu()
        times.append((time.perf_counter() - began, wanted))
        codes = codes.to("cpu").validate(spec)
        drawn += CodeCounts.of(codes, spec, pixels[:, 0].numel())
        if network is not None:
            distances.update(network(pixels.to(device)), real=False)
        for place in range(min(examples - len(kept), wanted)):
            figure = {"length": float(codes.lengths[place])}
            kept.append(Example(f"{start + place:06d}", None, pixels[place], codes[place], figure))
        share.report(wanted)
    seen: dict[str, Sequence[Any]] = {
        "digests": digests,
        "sums": sums,
        "other sums": other_texts,
        "data": [data.to_json()],
        "drawn": [drawn.to_json()],
        **distances.items,
        "times": without_warm_up(times),
        "examples": [example.to_plain() for example in kept],
    }

    def conclude(items: Items) -> Measurement:
        data, drawn = (
            CodeCounts.total((CodeCounts.from_json(each, spec) for each in items[name]), spec)
            for name in ("data", "drawn")
        )
        images = int(data.lengths.sum())
        if not images:
            raise UserError("there is no picture to measure")
        figures = likelihood_figures(total_sums(items["sums"]))
        if prior.conditioning.described and "bits_per_image" in figures:
            of_others = likelihood_figures(total_sums(items["other sums"]))
            figures["bits_per_image_of_other_texts"] = of_others["bits_per_image"]
        lengths = [_lengths(counts) for counts in (drawn, data)]
        values = {
            **{name: Value(value) for name, value in figures.items()},
            "length_of_samples": mean_value(lengths[0], seed),
            "length_of_data": mean_value(lengths[1], seed),
            "length_distance": Value(float(wasserstein_distance(*lengths))),
        }
        if network is not None:
            values |= named_distances(SetDistances(device, items).compute(seed), network.name)
        values["seconds_per_sample"] = seconds_each(items["times"])
        described = {"drawn": describe_codes(drawn, spec), "data": describe_codes(data, spec)}
        shown = [Example.from_plain(each) for each in items["examples"]]
        return Measurement(images, joint_hash(items["digests"]), values, described, examples=shown)

    return Seen(seen, conclude)


def _with_other_texts(
    prior: Prior, codes: list[Codes], texts: Sequence[str], before: int, device: torch.device | str, seed: int
) -> list[dict[str, float]]:
    """The likelihood of each batch of codes, each image with the text of another one.

    Args:
        prior: Reads texts.
        codes: Those of this process.
        texts: Those of all images, over all processes.
        before: How many of them are of the processes before this one.
        device: Where to compute.
        seed: Sets which image gets which text.
    """
    sums = []
    order = iter(np.random.default_rng(seed).permutation(len(texts))[before:].tolist())
    for batch in codes:
        shuffled = replace(batch, texts=tuple(texts[next(order)] for _ in range(len(batch)))).to(device)
        sums.append(likelihood_sums(prior.loss(shuffled), shuffled))
    return sums


def _draws(
    prior: Prior, sampling: SamplingOptions, sizes: Sequence[tuple[int, int]], share: ProcessShare, count: int
) -> Iterator[tuple[Sampler, int, int]]:
    """What draws each batch of this process, the number of its first image, and how many it has."""
    each = [sampling]
    if prior.asks_for_grid and sampling.regions is None:
        factor = prior.spec.factors[0]
        each = [replace(sampling, regions=(height // factor, width // factor)) for height, width in sizes]
    mine = share.of(count)
    for number, options in enumerate(each):
        first, end = (count * (number + edge) // len(each) for edge in (0, 1))
        first, end = max(first, mine.start), min(end, mine.stop)
        if first < end:
            sampler = prior.sampler(options)
            # between the edges of sizes, batches begin where those of all processes do
            edges = [first, *range(first - first % share.batch_size + share.batch_size, end, share.batch_size), end]
            for start, stop in itertools.pairwise(edges):
                yield sampler, start, stop - start


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


def _lengths(counts: CodeCounts) -> np.ndarray:
    """The length of each sequence, in ascending order."""
    return np.repeat(np.arange(len(counts.lengths), dtype=np.float64), counts.lengths)
