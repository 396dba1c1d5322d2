"""Drawing images from a DQ-Transformer (algorithm 1).

Unlike algorithm 1, whose images wait for the slowest at the end of every granularity, each image goes on when *it* has
drawn ⟨eos⟩, and a finished image's place in the batch goes to the next one. Neither changes the distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.priors.dq_steps import Sampler, State
from vltok.priors.sampling import seed_of

if TYPE_CHECKING:
    from vltok.priors.dq_transformer import DQTransformer

# Steps between looks at which images are finished: the only times that the host waits for the device.
STEPS_BETWEEN_LOOKS = 16


@torch.no_grad()
def draw(
    prior: DQTransformer,
    labels_or_count: Tensor | int,
    sampling: SamplingConfig,
    generator: torch.Generator | None,
    batch_size: int | None,
    first_image: int,
    progress: Callable[[int], None] | None,
    observe: Callable[[State], None] | None = None,
) -> Codes:
    """Draw images: see `Prior.sample`; `observe` is called with the state after every step."""
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    labels = _labels(prior, labels_or_count, sampling)
    count, device = len(labels), labels.device
    images = torch.arange(count, device=device) + first_image
    sampler = Sampler(prior, sampling, seed_of(generator))
    size = min(batch_size or count, count)
    state, caches = sampler.start(images[:size], labels[:size], 0), sampler.caches(size)
    # What the host knows: of each row of the batch its image, None once that is finished, and the step in which it
    # started; how many images have been started; and the finished ones.
    rows: list[int | None] = list(range(size))
    started = [0] * size
    begun = size
    order: list[int] = []
    parts: list[Codes] = []
    step = 0
    while len(order) < count:
        first = min(start for start, image in zip(started, rows, strict=True) if image is not None)
        for _ in range(STEPS_BETWEEN_LOOKS):
            state = sampler.step(state, caches, step, step - first)
            step += 1
            if observe is not None:
                observe(state)
        done = sampler.finished(state).tolist()
        ended = [row for row, image in enumerate(rows) if image is not None and done[row]]
        if not ended:
            continue
        parts.append(sampler.codes(state, torch.tensor(ended, device=device)))
        order += [rows[row] for row in ended]
        if progress is not None:
            progress(len(ended))
        # the next images take the places of finished ones
        fresh = min(len(ended), count - begun)
        for offset, row in enumerate(ended):
            rows[row] = begun + offset if offset < fresh else None
            started[row] = step
        if fresh:
            beginning = sampler.start(images[begun : begun + fresh], labels[begun : begun + fresh], step)
            state = state.replace(torch.tensor(ended[:fresh], device=device), beginning)
            begun += fresh
        # when there are none, and half of the batch is idle, it shrinks
        busy = [row for row, image in enumerate(rows) if image is not None]
        if busy and 2 * len(busy) <= len(rows):
            kept = torch.tensor(busy, device=device)
            sampler.shrink(caches, kept, len(rows))
            state = state.select(kept)
            rows, started = [rows[row] for row in busy], [started[row] for row in busy]
    codes = Codes.concatenate(parts)[torch.tensor(order, device=device).argsort()]
    return codes if isinstance(labels_or_count, int) else replace(codes, labels=labels)


def _labels(prior: DQTransformer, labels_or_count: Tensor | int, sampling: SamplingConfig) -> Int[Tensor, " b"]:
    """The class of each image to draw; the number of classes, or 0 without classes, where it has none."""
    device = prior.ordering.place_region.device
    classes = prior.classes
    if sampling.guidance != 1 and not prior.label_dropout:
        raise UserError(
            "guidance needs a prior that has also learned images without their class: train it with classes and a "
            "label_dropout above 0, or leave guidance at 1"
        )
    if isinstance(labels_or_count, int):
        if labels_or_count < 1:
            raise UserError(f"the number of images to draw must be at least 1, not {labels_or_count}")
        if classes is not None and not prior.label_dropout:
            raise UserError(f"this prior draws images of a class: give labels from 0 to {classes - 1}")
        return torch.full((labels_or_count,), classes or 0, device=device)
    if classes is None:
        raise UserError("this prior knows no classes: ask for a number of images instead of labels")
    labels = labels_or_count.long()
    if not labels.numel() or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UserError(f"labels must be one or more numbers from 0 to {classes - 1}, not {labels.tolist()}")
    return labels.to(device)
