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
from vltok.drawing.conditioning import Wanted
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
    likelihood is also told with the texts of other pictures: texts that matter make the difference; likewise of one
    that reads embeddings. Likelihoods have no intervals: `Prior.loss` gives means over a packed batch, of which no
    resample of images can be taken.

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
            prior does not know; no picture has a text, or they have no embedding, though the prior reads such; or, when
            it is concluded, there is no picture.
    """
    spec = tokenizer.spec
    distances = SetDistances(device)
    sums: list[dict[str, float]] = []
    conditioned: list[Codes] = []
    data, drawn = CodeCounts.none(spec), CodeCounts.none(spec)
    digests: list[bytes] = []
    for batch in share.batches(source):
        codes = replace(
            tokenizer.encode(batch.images.to(device)),
            labels=_labels(batch, prior, device),
            texts=batch.texts or ("",) * len(batch),
            embeddings=None if batch.embeddings is None else batch.embeddings.to(device),
        )
        sums.append(likelihood_sums(prior.loss(codes.validate(prior.spec)), codes))
        data += CodeCounts.of(codes.to("cpu"), spec, batch.images[:, 0].numel())
        if prior.conditioning.reader is not None:
            conditioned.append(codes.to("cpu"))
        pixels = to_bytes(batch.images)
        digests += pixel_digests(pixels)
        if network is not None:
            distances.update(network(pixels.to(device)), real=True)
    conditions_of_each = gather([[_conditions(codes) for codes in conditioned]])
    of_all = list(itertools.chain.from_iterable(conditions_of_each))
    prompts = Codes.concatenate(of_all) if of_all else None
    if prior.conditioning.described and not (prompts and any(prompts.require_texts())):
        raise UserError("this prior reads texts, but the pictures have none: give data with texts (data.texts)")
    before = sum(map(len, itertools.chain.from_iterable(conditions_of_each[: world()[0]])))
    of_others = [] if prompts is None else _with_those_of_others(prior, conditioned, prompts, before, device, seed)
    kept: list[Example] = []
    times: list[tuple[float, int]] = []
    for sampler, start, wanted in _draws(prior, sampling, sizes, share, count):
        each = torch.arange(start, start + wanted, device=device)
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        asked: Wanted = wanted if prior.classes is None else each % prior.classes
        if prompts:
            asked = prior.conditioning.conditions(prompts[each.cpu() % len(prompts)])
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
        "other sums": of_others,
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
        if prior.conditioning.reads and "bits_per_image" in figures:
            others = likelihood_figures(total_sums(items["other sums"]))
            figures[f"bits_per_image_of_other_{prior.conditioning.reads}"] = others["bits_per_image"]
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


def _conditions(codes: Codes) -> Codes:
    """The texts and embeddings of codes, and none of their ids."""
    return Codes(codes.ids[:0], torch.zeros_like(codes.lengths), texts=codes.texts, embeddings=codes.embeddings)


def _with_those_of_others(
    prior: Prior, codes: list[Codes], prompts: Codes, before: int, device: torch.device | str, seed: int
) -> list[dict[str, float]]:
    """The likelihood of each batch of codes, each image with the text or embedding of another one.

    Args:
        prior: Reads texts or embeddings.
        codes: Those of this process.
        prompts: The texts or embeddings of all images, over all processes.
        before: How many of them are of the processes before this one.
        device: Where to compute.
        seed: Sets which image gets which text or embedding.
    """
    sums, start = [], before
    shuffled = prompts[np.random.default_rng(seed).permutation(len(prompts))]
    for batch in codes:
        others = shuffled[start : start + len(batch)]
        start += len(batch)
        told = replace(batch, texts=others.texts, embeddings=others.embeddings).to(device)
        sums.append(likelihood_sums(prior.loss(told), told))
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
