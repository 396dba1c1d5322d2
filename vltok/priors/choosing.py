"""Who chooses the tokens of a step: chance, as the options of sampling say, or somebody who is told the logits.

Axis letters: b image, n row (an image, or with guidance an image with its class and one without), d model width,
v vocabulary, q id of a code (no axis where there is one codebook).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.code_maps import first_id
from vltok.codes import Codes
from vltok.drawing.config import SamplingOptions
from vltok.drawing.sampling import Guidance, draw_content
from vltok.interfaces.prior import Choose
from vltok.nn.code_heads import CodeHead
from vltok.nn.sequence_model import Cursors
from vltok.priors.layout import FREE, Layout
from vltok.priors.orderings import RasterOrder, chosen_by_turns
from vltok.priors.stepwise import State, StepInputs, Steps

#: `draw_content` or `draw_position` of `vltok.drawing.sampling`: logits, options and noise give a token of each image.
Draw: TypeAlias = Callable[[Tensor, Any, Tensor], Tensor]


class Chooser(ABC):
    """Chooses the next token of every image."""

    @abstractmethod
    def __call__(
        self,
        draw: Draw,
        logits: Float[Tensor, "b v"],
        noise: Float[Tensor, " b"],
        used: Bool[Tensor, " b"],
        section: Int[Tensor, " b"] | None = None,
    ) -> Int[Tensor, " b"]:
        """A token of each image.

        Args:
            draw: How one is drawn.
            logits: -inf where a token cannot be.
            noise: Uniform in [0, 1).
            used: Which images need one; for the others any will do.
            section: The granularity at hand, where a prior goes from coarse to fine; None where it does not.
        """


class Drawn(Chooser):
    """Draws at random.

    Args:
        sampling: How.
    """

    def __init__(self, sampling: SamplingOptions) -> None:
        self.sampling = sampling

    def __call__(
        self,
        draw: Draw,
        logits: Float[Tensor, "b v"],
        noise: Float[Tensor, " b"],
        used: Bool[Tensor, " b"],
        section: Int[Tensor, " b"] | None = None,
    ) -> Int[Tensor, " b"]:
        """A token of each image. See `Chooser`."""
        return draw(logits, self.sampling, noise)


class Told(Chooser):
    """Asks somebody, for a batch of one.

    Args:
        choose: Whom.
    """

    def __init__(self, choose: Choose) -> None:
        self.choose = choose

    def __call__(
        self,
        draw: Draw,
        logits: Float[Tensor, "b v"],
        noise: Float[Tensor, " b"],
        used: Bool[Tensor, " b"],
        section: Int[Tensor, " b"] | None = None,
    ) -> Int[Tensor, " b"]:
        """The token of the image. See `Chooser`.

        Raises:
            _Unknown: Nobody knows it.
        """
        if not bool(used):
            return logits.argmax(1)
        chosen = self.choose(logits[0], 0 if section is None else int(section))
        if chosen is None:
            raise _Unknown
        return torch.tensor([chosen], device=logits.device)


class _Unknown(Exception):
    pass


@dataclass(frozen=True, eq=False)
class CodeChooser:
    """Chooses the next code of every image, id after id.

    Attributes:
        head: Predicts them.
        size: How many ids may be chosen among.
        guidance: How logits with and without a class are combined.
        choose: Who chooses an id.
    """

    head: CodeHead
    size: int
    guidance: Guidance
    choose: Chooser

    def __call__(
        self,
        hidden: Float[Tensor, "n d"],
        noise: Float[Tensor, "b _"],
        used: Bool[Tensor, " b"],
        section: Int[Tensor, " b"] | None = None,
    ) -> Int[Tensor, " b *q"]:
        """A code of each image.

        Args:
            hidden: What it follows from.
            noise: Uniform in [0, 1), a number for each id.
            used: Which images need one: see `Chooser`.
            section: The granularity at hand: see `Chooser`.
        """
        numbers = iter(noise.unbind(dim=1))

        def chosen(logits: Float[Tensor, "n v"]) -> Int[Tensor, " n"]:
            logits = self.guidance.logits(logits)[:, : self.size]
            return self.guidance.rows(self.choose(draw_content, logits, next(numbers), used, section))

        return self.head.walk(hidden, chosen)[: len(used)]


@torch.no_grad()
def answered(steps: Steps[State]) -> State:
    """A batch of one, as far as somebody knows the tokens that steps ask for.

    Args:
        steps: Of a `Told`.
    """
    device = next(steps.prior.parameters()).device
    labels = steps.prior.conditioning.to_draw(1, 1.0, device)
    conditions = steps.prior.conditioning.conditions_to_draw(1, labels)
    caches = steps.caches(1)
    state = steps.start(1)
    with torch.autocast(device.type, enabled=False):
        for step in range(steps.longest):
            if bool(steps.finished(state)):
                break
            cursors = Cursors.at(torch.tensor([step], device=device), step, steps.longest)
            try:
                state = steps.step(state, StepInputs(labels, conditions, cursors, torch.zeros(1, steps.draws), caches))
            except _Unknown:
                break
    steps.guidance.watch.require_numbers()
    return state


def walked(steps: Steps[Any], layout: Layout) -> tuple[Codes, Bool[Tensor, "h w"]]:
    """The image that steps make whose tokens somebody is asked for: see `Codable.walk`.

    Args:
        steps: Of a `Told`; their state has the codes, `laid` as the layout lays them, and one column more.
        layout: Where codes lie.
    """
    laid = answered(steps).laid[:, :-1].clone()
    known = torch.zeros(layout.regions, dtype=torch.bool, device=laid.device)
    known[layout.region[first_id(laid[0], layout.spec) != FREE]] = True
    # the places of the coarsest granularity come first, one for each region
    laid[0, : layout.regions][~known] = 0
    return layout.collect(laid), known.view(layout.spec.grid)


def raster_choices(ordering: RasterOrder, codes: Codes) -> list[int]:
    """What makes an image region by region: the granularity of each, then its codes.

    Args:
        ordering: The prior's.
        codes: A batch of one.
    """
    tokens, layout = ordering(codes), ordering.layout
    granularities = layout.granularity[tokens.places]
    opens = layout.inside[tokens.places] == layout.inside_offsets[granularities]
    return chosen_by_turns(granularities, opens, tokens.contents, torch.ones_like(opens))
