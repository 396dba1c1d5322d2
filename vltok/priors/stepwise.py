"""Drawing images token by token: the loop that all autoregressive priors share. Each gives only its own steps.

Every image goes at its own pace: one that is finished makes room for the next one at once, and the others do not wait.
The host looks at which are finished only now and then, so that the device never idles.

Axis letters: b image, n row (an image, or with guidance an image with its class and one without), u random number.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, fields, replace
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from vltok.codes import Codes
from vltok.drawing.batches import Drawing, WantedImages
from vltok.drawing.sampling import Guidance, uniforms
from vltok.interfaces import Prior, TextEncoder
from vltok.nn.linear import Linear, PackedLinear, packs
from vltok.nn.sequence_model import Cursors, KeyValueCache, Reach, span_of
from vltok.priors.captured import CapturedSteps, Step

# The most steps between looks at which images are finished: the only times that the host waits for the device.
STEPS_BETWEEN_LOOKS = 16


@runtime_checkable
class DataClass(Protocol):
    """Any data class."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


#: A frozen dataclass of tensors `[b …]`: what a prior knows of images under way.
State = TypeVar("State", bound=DataClass)
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class StepInputs:
    """What a prior's step is given besides its own state.

    Attributes:
        labels: The class of each row, `[n]`.
        conditions: What the prior reads of the text or embedding of each image, `[b ...]`; rows beyond these have none.
        cursors: Where each row stands.
        noise: Numbers of each image's random stream, uniform in [0, 1), `[b u]`.
        caches: Those that the prior has made; the step adds to them.
    """

    labels: Int[Tensor, " n"]
    conditions: Shaped[Tensor, "b ..."]
    cursors: Cursors
    noise: Float[Tensor, "b u"]
    caches: Sequence[KeyValueCache]


class Steps(ABC, Generic[State]):
    """A prior's own part of drawing: the step that all images of a batch take together.

    Attributes:
        prior: The model.
        guidance: How logits with and without a class are combined.
        longest: The most steps that an image takes.
        draws: How many random numbers a step of an image needs.
    """

    prior: Prior
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
    def step(self, state: State, inputs: StepInputs) -> State:
        """The images after a step. One that is finished steps on until the host looks: nothing may come of it."""

    @abstractmethod
    def finished(self, state: State) -> Bool[Tensor, " b"]:
        """Which images are complete."""

    @abstractmethod
    def codes(self, state: State) -> Codes:
        """The codes of images that are all finished."""


@dataclass(frozen=True, eq=False)
class Batch(Generic[State]):
    """Images under way.

    Attributes:
        wanted: The images that the rows hold.
        taken: How many steps each has taken, `[b]`.
        state: What the prior knows of them.
    """

    wanted: WantedImages
    taken: Int[Tensor, " b"]
    state: State

    def tensors(self) -> list[Tensor]:
        """All that it consists of, each of a row an image."""
        parts = [getattr(part, field.name) for part in (self.wanted, self.state) for field in fields(part)]
        return [*parts, self.taken]

    def of(self, tensors: Sequence[Tensor]) -> Batch[State]:
        """Another batch that consists of other tensors, in the same order."""
        given = iter(tensors)
        wanted = replace(self.wanted, **{field.name: next(given) for field in fields(self.wanted)})
        state = replace(self.state, **{field.name: next(given) for field in fields(self.state)})
        return Batch(wanted, next(given), state)

    def chosen(self, rows: Int[Tensor, " m"]) -> Batch[State]:
        """Some images."""
        return self.of([tensor[rows] for tensor in self.tensors()])

    def placed(self, rows: Int[Tensor, " m"], others: Batch[State]) -> Batch[State]:
        """Other images in some rows."""
        pairs = zip(self.tensors(), others.tensors(), strict=True)
        return self.of([tensor.index_copy(0, rows, other) for tensor, other in pairs])


class StepwiseDrawing(Drawing, Generic[State]):
    """Draws step by step.

    Args:
        steps: The prior's own.
        observe: Called with the numbers of the images and their state after every step.
    """

    def __init__(self, steps: Steps[State], observe: Callable[[Int[Tensor, " b"], State], None] | None = None) -> None:
        self.steps = steps
        self.observe = observe

    def finished(self, images: WantedImages, batch_size: int) -> Iterator[tuple[Sequence[int], Codes]]:
        """Images as they are finished: each makes room for the next."""
        steps, guidance, count = self.steps, self.steps.guidance, len(images)
        guidance.watch.forget()
        device = images.numbers.device
        # the CPU is asked for nothing, and its steps take as long as they have rows
        stride, fullest = (1, 0.75) if device.type == "cpu" else (min(STEPS_BETWEEN_LOOKS, steps.longest), 0.5)
        size = min(batch_size, count)
        batch = self._begun(images[:size])
        caches = steps.caches(len(guidance.rows(batch.taken)))
        take = self._taking(batch, caches)
        # What the host knows: of each row its image, None once that is finished, and the steps that it has taken; how
        # many images have been started.
        rows: list[int | None] = list(range(size))
        ages = [0] * size
        begun = size
        while any(image is not None for image in rows):
            # the precision that was asked for decides, not one around the call
            with torch.autocast(device.type, enabled=False):
                for further in range(stride):
                    batch = batch.of(take(batch.tensors(), self._reach(ages, further, device)))
                    if self.observe is not None:
                        self.observe(batch.wanted.numbers, batch.state)
            ages = [age + stride for age in ages]
            done = guidance.watch.read(steps.finished(batch.state))
            ended = [row for row, image in enumerate(rows) if image is not None and done[row]]
            if not ended:
                continue
            numbers = [image for row in ended if (image := rows[row]) is not None]
            yield numbers, steps.codes(batch.chosen(torch.tensor(ended, device=device)).state)
            # the next images take the places of finished ones
            fresh = min(len(ended), count - begun)
            for offset, row in enumerate(ended):
                rows[row] = begun + offset if offset < fresh else None
                ages[row] = 0
            if fresh:
                places = torch.tensor(ended[:fresh], device=device)
                batch = batch.placed(places, self._begun(images[begun : begun + fresh]))
                begun += fresh
            # when there are none, and much of the batch is idle, it shrinks
            busy = [row for row, image in enumerate(rows) if image is not None]
            if busy and len(busy) <= fullest * len(rows):
                kept = torch.tensor(busy, device=device)
                for cache in caches:
                    cache.keep(guidance.kept(kept, len(rows)))
                batch = batch.chosen(kept)
                rows, ages = [rows[row] for row in busy], [ages[row] for row in busy]
            # on the CPU, rows that read as much of their caches stand together
            order = by_age(ages, _run(ages, device))
            if order != list(range(len(rows))):
                moved = torch.tensor(order, device=device)
                for cache in caches:
                    cache.reorder(guidance.kept(moved, len(rows)).tolist())
                batch = batch.chosen(moved)
                rows, ages = [rows[row] for row in order], [ages[row] for row in order]

    def _begun(self, images: WantedImages) -> Batch[State]:
        """Images of which nothing has been drawn."""
        return Batch(images, torch.zeros_like(images.numbers), self.steps.start(len(images)))

    def _taking(self, batch: Batch[State], caches: Sequence[KeyValueCache]) -> Step:
        """What takes a step of all images."""
        steps, guidance, device = self.steps, self.steps.guidance, batch.taken.device
        draws = torch.arange(steps.draws, device=device)

        def take(tensors: Sequence[Tensor], reach: Reach) -> list[Tensor]:
            before = batch.of(tensors)
            at = before.taken.clamp(max=steps.longest - 1)
            rows = guidance.rows(at)
            streams = before.wanted.streams[:, None].expand(-1, steps.draws)
            inputs = StepInputs(
                guidance.labels(before.wanted.labels, steps.prior.conditioning.nothing),
                before.wanted.conditions,
                Cursors.within(rows, reach * (len(rows) // len(at))),
                uniforms(streams, steps.draws * at[:, None] + draws),
                caches,
            )
            return Batch(before.wanted, before.taken + 1, steps.step(before.state, inputs)).tensors()

        if device.type != "cuda" or self.observe is not None or not all(cache.repeatable for cache in caches):
            return take
        return CapturedSteps(take)

    def _reach(self, ages: Sequence[int], further: int, device: torch.device) -> Reach:
        """What images of some ages, and some steps later, read of their caches."""
        size, longest = _run(ages, device), self.steps.longest
        runs = [ages[start : start + size] for start in range(0, len(ages), size)]
        return tuple((len(run), span_of(max(run) + further, longest, device)) for run in runs)


def by_age(ages: Sequence[int], size: int) -> list[int]:
    """An order in which runs of so many rows have similar ages, the oldest first: few of the rows change places."""
    ranked = sorted(range(len(ages)), key=lambda row: -ages[row])
    order = list(range(len(ages)))
    for start in range(0, len(ages), size):
        places, wanted = range(start, min(start + size, len(ages))), set(ranked[start : start + size])
        left = [place for place in places if place not in wanted]
        come = [row for row in ranked[start : start + size] if row not in places]
        for place, row in zip(left, come, strict=True):
            order[place] = row
    return order


def _run(ages: Sequence[int], device: torch.device) -> int:
    """How many rows attention reads as many steps of. More calls cost a GPU more than they save."""
    return max(4, math.ceil(len(ages) / 8)) if device.type == "cpu" else len(ages)


def in_precision(prior: Module, precision: Literal["float32", "bfloat16"]) -> Module:
    """The prior with its matrices in a precision, on the CPU as its kernels read them. Norms, embeddings and the
    residual stream keep theirs, or get float32 where theirs is lower, as after training with bfloat16 weights.

    What stays as it is belongs to both, such as text encoders, which have read before drawing begins; where nothing
    changes, it is the prior itself. On the CPU, drawing several images at once in float32 takes the memory of the
    matrices once more.
    """
    dtype = getattr(torch, precision)
    parts: dict[int, Any] = {}  # of the prior that is given back, by the identities of those that they stand for
    encoders = [module for module in prior.modules() if isinstance(module, TextEncoder)]
    parts |= {id(encoder): encoder for encoder in encoders}
    apart = {id(part) for encoder in encoders for part in encoder.modules()}
    for module in (module for module in prior.modules() if id(module) not in apart):
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            lower = tensor.dtype in (torch.bfloat16, torch.float16)
            wanted = dtype if isinstance(module, nn.Linear) else torch.float32 if lower else tensor.dtype
            parts[id(tensor)] = tensor if tensor.dtype == wanted else nn.Parameter(tensor.to(wanted))
        if isinstance(module, Linear) and module.weight.device.type == "cpu" and packs(dtype):
            parts[id(module)] = PackedLinear(module, dtype)
    unchanged = all(id(part) == identity for identity, part in parts.items())
    return prior if unchanged else copy.deepcopy(prior, parts)
