"""Drawing codes by a DQ-Transformer against `generate` of a GPT-2 of the same size with its cache.

The images have lengths as real ones have. GPT-2 draws a batch until its longest image is complete, as `generate` does;
a code that comes after its image's end does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from vltok.codes import Codes
from vltok.drawing.batches import WantedImages
from vltok.drawing.config import SamplingConfig
from vltok.priors.dq_steps import CoarseToFineState, CoarseToFineSteps
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.stepwise import StepInputs, StepwiseDrawing, in_precision

from .base_prior import codes_of_images, dq_transformer, gpt2, told
from .table import Row, Setting, name, ratios, timed

Work = Callable[[list[int], int], None]


def rows(setting: Setting) -> Iterator[Row]:
    """A code of one image, and of 16 and 64 images at once."""
    prior = dq_transformer(setting, side=4 if setting.tiny else 8).eval()
    model = gpt2(prior).eval()
    for dtype in setting.precisions:
        ours, theirs = in_precision(prior, name(dtype)), model.to(dtype)
        for batch in (1, 2) if setting.tiny else (1, 16, 64):
            lengths = codes_of_images(prior.spec, 1 if batch == 1 else 2 * batch).lengths.tolist()
            works: tuple[Work, Work] = partial(draw, ours), partial(generate, theirs)
            for work in works:  # few images warm up as well as many, which take minutes
                work(lengths[:4], min(batch, 4))
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(min(setting.turns, 3 if batch == 1 else 1)):
                for work, taken in zip(works, times, strict=True):
                    taken.append(timed(partial(work, lengths, batch), setting.device))
            seconds, baseline = times
            yield Row(
                "sampling",
                f"batch {batch}, {len(lengths)} images of {min(lengths)}–{max(lengths)} codes, {name(dtype)}, "
                f"{told(prior)}",
                f"{sum(lengths) / min(seconds):,.1f} codes/s",
                f"GPT-2 {sum(lengths) / min(baseline):,.1f} codes/s",
                ratios(seconds, baseline),
                target=1.0 if batch == 1 else 1.3,
            )


@dataclass(frozen=True, eq=False)
class Shortened(CoarseToFineState):
    """Images under way that end after so many more steps, `[b]`."""

    left: Int[Tensor, " b"]


class OfLengths(CoarseToFineSteps):
    """Draws images of given lengths: each is cut where it has its codes."""

    def __init__(self, prior: DQTransformer, lengths: list[int]) -> None:
        super().__init__(prior, SamplingConfig(codes=prior.spec.longest_length))
        self.lengths = iter(lengths)

    def start(self, images: int) -> Shortened:
        left = torch.tensor([next(self.lengths) for _ in range(images)], device=self.device)
        return Shortened(**vars(super().start(images)), left=left)

    def step(self, state: Shortened, inputs: StepInputs) -> Shortened:
        moved = super().step(state, inputs)
        return replace(moved, left=state.left - 1)

    def finished(self, state: Shortened) -> Bool[Tensor, " b"]:
        return state.left <= 0

    def codes(self, state: Shortened) -> Codes:
        return Codes(state.content, torch.ones_like(state.content))  # nobody looks at them


@torch.no_grad()
def draw(prior: DQTransformer, lengths: list[int], batch: int) -> None:
    """Draw images of these lengths, no more than a batch at a time."""
    numbers = torch.arange(len(lengths), device=next(prior.parameters()).device)
    labels, texts = torch.zeros_like(numbers), numbers.new_zeros(len(numbers), 0)
    wanted = WantedImages(numbers, numbers, labels, texts)
    for _ in StepwiseDrawing(OfLengths(prior, lengths)).finished(wanted, batch):
        pass


@torch.no_grad()
def generate(model: GPT2LMHeadModel, lengths: list[int], batch: int) -> None:
    """Draw sequences of these lengths, batch after batch."""
    for start in range(0, len(lengths), batch):
        part = lengths[start : start + batch]
        begun = torch.full((len(part), 1), model.config.bos_token_id, device=model.device)
        model.generate(
            begun,
            attention_mask=torch.ones_like(begun),
            do_sample=True,
            top_k=0,
            min_new_tokens=max(part),
            max_new_tokens=max(part),
        )
