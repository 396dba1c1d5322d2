"""Who chooses the tokens of a step: chance, as the options of sampling say, or somebody who is told the logits.

Axis letters: b image, v vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.codes import Codes
from vltok.drawing.config import SamplingOptions
from vltok.interfaces.prior import Choose
from vltok.nn.sequence_model import Cursors
from vltok.priors.layout import FREE, Layout
from vltok.priors.orderings import RasterOrder
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


@torch.no_grad()
def answered(steps: Steps[State]) -> State:
    """A batch of one, as far as somebody knows the tokens that steps ask for.

    Args:
        steps: Of a `Told`.
    """
    device = next(steps.prior.parameters()).device
    labels = steps.prior.conditioning.to_draw(1, 1.0, device)
    caches = steps.caches(1)
    state = steps.start(1)
    with torch.autocast(device.type, enabled=False):
        for step in range(steps.longest):
            if bool(steps.finished(state)):
                break
            cursors = Cursors.at(torch.tensor([step], device=device), step, steps.longest)
            try:
                state = steps.step(state, StepInputs(labels, cursors, torch.zeros(1, steps.draws), caches))
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
    known[layout.region[laid[0] != FREE]] = True
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
    pairs = torch.stack([granularities, tokens.contents], dim=1)
    return pairs[torch.stack([opens, torch.ones_like(opens)], dim=1)].tolist()
