"""How a prior's time and a tokenizer's memory grow: a power law is fitted to each, and its exponent told."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from vltok.codes import CodeSpec
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer
from vltok.tokenizers.quantizers import nearest_codes

from .base_prior import codes_of_images
from .table import Row, Setting, timed


def rows(setting: Setting) -> Iterator[Row]:
    """A training step over code length, batch and codebook; the search over the codebook."""
    sides = (4, 8) if setting.tiny else (4, 8, 16, 32)
    few = 2 if setting.tiny else 4
    yield law(
        "training step over mean code length",
        [side * side * 5 / 2 for side in sides],
        [step(setting, side=side) for side in sides],
        setting,
    )
    batches = [2**power for power in range(few)]
    yield law("training step over batch", batches, [step(setting, images=images) for images in batches], setting)
    codebooks = [2**power for power in range(8, 8 + 2 * few, 2)]
    yield law("training step over codebook", codebooks, [step(setting, codebook=size) for size in codebooks], setting)
    yield law("nearest code over codebook", codebooks, [search(setting, size) for size in codebooks], setting)
    granularities = range(2, 2 + (1 if setting.tiny else 3))
    yield law(
        "training step over granularities K",
        list(granularities),
        [step(setting, granularities=count) for count in granularities],
        setting,
    )


def law(work: str, sizes: Sequence[float], works: Sequence[Callable[[], object]], setting: Setting) -> Row:
    """The exponent by which the time of a work grows with its size, by least squares of logarithms."""
    seconds = []
    for each in works:
        each()
        seconds.append(min(timed(each, setting.device) for _ in range(min(setting.turns, 3))))
    ends = f"{sizes[0]:g}–{sizes[-1]:g}"
    times = f"{1000 * seconds[0]:,.0f}–{1000 * seconds[-1]:,.0f} ms"
    if len(sizes) == 1:
        return Row(work, ends, times)
    slope = statistics.linear_regression([math.log(size) for size in sizes], [math.log(time) for time in seconds]).slope
    return Row(work, ends, f"{times}, exponent {slope:.2f}")


def step(
    setting: Setting, side: int = 8, images: int = 4, codebook: int = 1024, granularities: int = 2
) -> Callable[[], None]:
    """A forward and a backward pass of a small DQ-Transformer."""
    factors = tuple(4 * 2**granularity for granularity in range(granularities))
    width = 32 if setting.tiny else 256
    prior = DQTransformer(
        CodeSpec(codebook, factors, (side, side)),
        position_transformer=Transformer(width, 4, 1, dropout=0.0),
        content_transformer=Transformer(width, 4, 3, dropout=0.0),
    ).to(setting.device)
    codes = codes_of_images(prior.spec, images).to(setting.device)

    def work() -> None:
        prior.zero_grad()
        prior.loss(codes).total.backward()

    return work


def search(setting: Setting, size: int) -> Callable[[], object]:
    """The nearest codes of 16,384 vectors."""
    codebook = torch.randn(size, 64, device=setting.device)
    vectors = torch.randn(1, 64, 128, 128, device=setting.device)
    return lambda: nearest_codes(vectors, codebook)
