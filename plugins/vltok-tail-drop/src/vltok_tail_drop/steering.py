"""Prefixes of an image's codes, of which any may be asked for.

Axis letters: b image, n length.
"""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vltok.codes import Codes
from vltok.interfaces import Candidates


class PrefixSteps(Candidates):
    """What images could be encoded to: each step adds the next code.

    A step counts by the error that is left before it, so that one threshold brings all images below one error, as
    `MeanLength` has it.

    Args:
        ids: All codes of the images.
        own: Gives what the tokenizer chooses itself.
        errors: Gives the error of each image at each length, 1 to n; called where scores are asked for, since it
            decodes them all.
    """

    def __init__(
        self, ids: Int[Tensor, "b n *q"], own: Callable[[], Codes], errors: Callable[[], Float[Tensor, "b n"]]
    ) -> None:
        self._ids = ids
        self._own = own
        self._errors = errors

    @property
    def own(self) -> Codes:
        return self._own()

    @property
    def lengths(self) -> Int[Tensor, "b _"]:
        return torch.arange(1, self._ids.shape[1] + 1, device=self._ids.device).expand(len(self._ids), -1)

    @functools.cached_property
    def scores(self) -> Float[Tensor, "b _"]:
        return self._errors()[:, :-1].cummin(dim=1).values

    def after(self, steps: Int[Tensor, " b"]) -> Codes:
        return self.within(steps + 1)

    def within(self, most: Int[Tensor, " b"]) -> Codes:
        lengths = most.clamp(max=self._ids.shape[1])
        kept = torch.arange(self._ids.shape[1], device=lengths.device) < lengths[:, None]
        return Codes(self._ids[kept], lengths)
