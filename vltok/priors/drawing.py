"""Drawing images in batches: the loop that all autoregressive priors share. Each gives only its own steps.

Every image goes at its own pace: one that is finished makes room for the next one at once, and the others do not wait.
The host looks at which are finished only now and then, so that the device never idles.

Axis letters: b image, n row (an image, or with guidance an image with its class and one without), u random number.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Generic, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.codes import Codes
from vltok.errors import whole_number
from vltok.nn.transformer import Cursors, KeyValueCache
from vltok.priors.conditioning import Conditioning
from vltok.priors.sampling import Guidance, seed_of, streams, uniforms

# The most steps between looks at which images are finished: the only times that the host waits for the device.
STEPS_BETWEEN_LOOKS = 16

#: A frozen dataclass of tensors `[b …]`: what a prior knows of images under way.
State = TypeVar("State")
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Images:
    """Images under way.

    Attributes:
        number: The number of each image, `[b]`.
        stream: Its random stream, `[b]`.
        label: Its class, or the number of classes where it has none, `[b]`.
        steps: How many steps it has taken, `[b]`.
    """

    number: Int[Tensor, " b"]
    stream: Int[Tensor, " b"]
    label: Int[Tensor, " b"]
    steps: Int[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class Turn:
    """What a prior's step is given besides its own state.

    Attributes:
        labels: The class of each row, `[n]`.
        cursors: Where each row stands.
        noise: Numbers of each image's random stream, uniform in [0, 1), `[b u]`.
        caches: Those that the prior has made; the step adds to them.
    """

    labels: Int[Tensor, " n"]
    cursors: Cursors
    noise: Float[Tensor, "b u"]
    caches: Sequence[KeyValueCache]


class Steps(ABC, Generic[State]):
    """A prior's own part of drawing: the step that all images of a batch take together.

    Attributes:
        device: Where the prior is.
        guidance: How logits with and without a class are combined.
        longest: The most steps that an image takes.
        draws: How many random numbers a step of an image needs.
    """

    device: torch.device
    guidance: Guidance
    longest: int
    draws: int

    @abstractmethod
    def caches(self, rows: int) -> Sequence[KeyValueCache]:
        """Empty caches for so many rows."""

    @abstractmethod
    def start(self, images: int) -> State:
        """So many images of which nothing has been drawn."""

    @abstractmethod
    def step(self, state: State, turn: Turn) -> State:
        """The images after a step. One that is finished steps on until the host looks: nothing may come of it."""

    @abstractmethod
    def finished(self, state: State) -> Bool[Tensor, " b"]:
        """Which images are complete."""

    @abstractmethod
    def codes(self, state: State) -> Codes:
        """The codes of images that are all finished."""


@torch.no_grad()
def draw(
    steps: Steps[State],
    conditioning: Conditioning,
    labels_or_count: Int[Tensor, " b"] | int,
    generator: torch.Generator | None,
    batch_size: int | None,
    first_image: int,
    progress: Callable[[int], None] | None,
    observe: Callable[[Images, State], None] | None = None,
) -> Codes:
    """Draw images: see `Prior.sample`.

    Args:
        steps: The prior's own.
        conditioning: The prior's own.
        labels_or_count: See `Prior.sample`, as for those that follow.
        generator: Gives the seed.
        batch_size: The most images at a time.
        first_image: The number of the first image.
        progress: Told how many images have been finished.
        observe: Called with the images and their state after every step.
    """
    if batch_size is not None:
        batch_size = whole_number("batch_size", batch_size, 1)
    first_image = whole_number("first_image", first_image)
    labels = conditioning.to_draw(labels_or_count, steps.guidance.scale, steps.device)
    count, guidance, device = len(labels), steps.guidance, steps.device
    numbers = torch.arange(count, device=device) + first_image
    of_seed = streams(seed_of(generator), numbers)
    draws = torch.arange(steps.draws, device=device)

    def begin(chosen: slice) -> tuple[Images, State]:
        started = Images(numbers[chosen], of_seed[chosen], labels[chosen], torch.zeros_like(labels[chosen]))
        return started, steps.start(len(started.number))

    stride = min(STEPS_BETWEEN_LOOKS, steps.longest)
    size = min(batch_size or count, count)
    images, state = begin(slice(0, size))
    caches = steps.caches(len(guidance.rows(labels[:size])))
    # What the host knows: of each row of the batch its image, None once that is finished, and the steps that it has
    # taken; how many images have been started; and the finished ones.
    rows: list[int | None] = list(range(size))
    ages = [0] * size
    begun = size
    order: list[int] = []
    parts: list[Codes] = []
    while len(order) < count:
        oldest = max(age for age, image in zip(ages, rows, strict=True) if image is not None)
        # the precision that was asked for decides, not one around the call
        with torch.autocast(device.type, enabled=False):
            for further in range(stride):
                at = images.steps.clamp(max=steps.longest - 1)
                turn = Turn(
                    guidance.labels(images.label, conditioning.classes),
                    Cursors.at(guidance.rows(at), oldest + further, steps.longest),
                    uniforms(images.stream[:, None].expand(-1, steps.draws), steps.draws * at[:, None] + draws),
                    caches,
                )
                state = steps.step(state, turn)
                images = replace(images, steps=images.steps + 1)
                if observe is not None:
                    observe(images, state)
        guidance.watch.require_numbers()
        ages = [age + stride for age in ages]
        done = steps.finished(state).tolist()
        ended = [row for row, image in enumerate(rows) if image is not None and done[row]]
        if not ended:
            continue
        parts.append(steps.codes(_chosen(state, torch.tensor(ended, device=device))))
        order += [rows[row] for row in ended]
        if progress is not None:
            progress(len(ended))
        # the next images take the places of finished ones
        fresh = min(len(ended), count - begun)
        for offset, row in enumerate(ended):
            rows[row] = begun + offset if offset < fresh else None
            ages[row] = 0
        if fresh:
            places = torch.tensor(ended[:fresh], device=device)
            new_images, new_state = begin(slice(begun, begun + fresh))
            images, state = _placed(images, places, new_images), _placed(state, places, new_state)
            begun += fresh
        # when there are none, and half of the batch is idle, it shrinks
        busy = [row for row, image in enumerate(rows) if image is not None]
        if busy and 2 * len(busy) <= len(rows):
            kept = torch.tensor(busy, device=device)
            for cache in caches:
                cache.keep(guidance.kept(kept, len(rows)))
            images, state = _chosen(images, kept), _chosen(state, kept)
            rows, ages = [rows[row] for row in busy], [ages[row] for row in busy]
    codes = Codes.concatenate(parts)[torch.tensor(order, device=device).argsort()]
    return replace(codes, labels=labels) if isinstance(labels_or_count, Tensor) else codes


def in_precision(prior: Module, precision: Literal["float32", "bfloat16"]) -> Module:
    """The prior with its matrices in a precision; norms, embeddings and the residual stream keep theirs, or get
    float32 where theirs is lower, as after training with bfloat16 weights."""
    dtype = getattr(torch, precision)
    matrices = [module for module in prior.modules() if isinstance(module, nn.Linear)]
    if all(matrix.weight.dtype == dtype for matrix in matrices):
        return prior
    prior = copy.deepcopy(prior)
    if any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in prior.parameters()):
        prior.float()
    for module in prior.modules():
        if isinstance(module, nn.Linear):
            module.to(dtype)
    return prior


def _chosen(state: State, rows: Int[Tensor, " m"]) -> State:
    """Some images."""
    return replace(state, **{field.name: getattr(state, field.name)[rows] for field in fields(state)})


def _placed(state: State, rows: Int[Tensor, " m"], others: State) -> State:
    """Other images in some rows."""
    changed = {
        field.name: getattr(state, field.name).index_copy(0, rows, getattr(others, field.name))
        for field in fields(state)
    }
    return replace(state, **changed)
