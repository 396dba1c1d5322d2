"""What is kept of an image, written in place of what is drawn there: any order of drawing allows it.

What is drawn before a kept code does not know of it; what is drawn after it does.

Axis letters: b image, r region, p place of any granularity's position map, q id of a code (no axis where there is one
codebook).
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from vltok.code_spec import CodeSpec
from vltok.drawing.keeping import Kept
from vltok.priors.layout import FREE


class Keeping:
    """Puts what is kept in place of what is drawn.

    Args:
        kept: What every image keeps, on the device of the prior.
        spec: What its codes may be.

    Attributes:
        granularities: The granularity of each region, `FREE` where any may be drawn; one more, which is free.
        laid: The code of each place, `FREE` where any may be drawn; one more, which is free.
    """

    granularities: Int[Tensor, " _"]
    laid: Int[Tensor, " _ *q"]

    def __init__(self, kept: Kept, spec: CodeSpec) -> None:
        grains, laid = kept.granularities, kept.laid(spec)
        self.granularities = torch.cat([grains, torch.full_like(grains[:1], FREE)])
        self.laid = torch.cat([laid, torch.full_like(laid[:1], FREE)])

    def granularity(self, region: Int[Tensor, " b"], drawn: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The granularity of a region of each image."""
        known = self.granularities[region]
        return torch.where(known == FREE, drawn, known)

    def content(self, place: Int[Tensor, " b"], drawn: Int[Tensor, " b *q"]) -> Int[Tensor, " b *q"]:
        """The code at a place of each image."""
        known = self.laid[place]
        return torch.where(known == FREE, drawn, known)
