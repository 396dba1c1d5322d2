"""Finite scalar quantization (FSQ), after Mentzer et al., https://arxiv.org/abs/2309.15505.

Axis letters: b image, c channel, H W grid of codes.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vltok.errors import UserError
from vltok.interfaces import Quantized, Quantizer

#: Keeps the outermost values of a channel inside what rounds to its levels (ε of appendix A.1).
_MARGIN = 1e-3


class FiniteScalarQuantizer(Quantizer):
    """Rounds each channel to one of a few levels; a code is the combination of all channels' levels.

    The codebook is a fixed grid in [-1, 1]. Nothing of it is learned, so that there is no loss, no code can fall out of
    use, and the weights of vectors change nothing.

    Args:
        levels: The number of levels of each channel, each at least 2. Their product is the number of codes; the paper
            recommends (table 1) ``[8, 6, 5]`` for about 2⁸, ``[8, 5, 5, 5]`` for 2¹⁰, ``[7, 5, 5, 5, 5]`` for 2¹²,
            ``[8, 8, 8, 6, 5]`` for 2¹⁴ and ``[8, 8, 8, 5, 5, 5]`` for 2¹⁶.

    Raises:
        UserError: There is no channel, or one of fewer than 2 levels.
    """

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise UserError(f"quantizer.levels must be numbers of at least 2, such as [8, 5, 5, 5], not {levels}")
        # [c 1 1], beside the channels of [b c H W]; integers, which no change of the module's precision rounds
        per_channel = torch.tensor(levels)[:, None, None]
        self.register_buffer("_levels", per_channel, persistent=False)
        # a level of channel i counts for the product of the levels of all channels before it
        self.register_buffer("_strides", per_channel.cumprod(0) // per_channel, persistent=False)
        self._size = math.prod(levels)

    @property
    def size(self) -> int:
        return self._size

    @property
    def dimension(self) -> int:
        return len(self._levels)

    def forward(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None = None) -> Quantized:
        """Quantize. The gradient passes the rounding as if it were not there; the loss is 0."""
        # half precision would round to levels of its own
        with torch.autocast(vectors.device.type, enabled=False):
            bounded = self._bound(vectors)
            ids = ((bounded.round().long() + self._levels // 2) * self._strides).sum(dim=1)
            carrier = bounded / (self._levels // 2)
            # the codes' own value, to the bit, with the gradient of what was rounded
            return Quantized(ids, self.lookup(ids) + (carrier - carrier.detach()), carrier.new_zeros(()))

    def lookup(self, ids: Int[Tensor, "b H W"]) -> Float[Tensor, "b c H W"]:
        return (ids[:, None].long() // self._strides % self._levels) / (self._levels // 2) - 1

    def _bound(self, vectors: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Squash each channel to where rounding gives one of its levels (appendix A.1, `bound`)."""
        half = (self._levels - 1) * ((1 - _MARGIN) / 2)
        # an even number of levels reaches half a level further down than up
        offset = 0.5 * (1 - self._levels % 2)
        return (vectors + (offset / half).tan()).tanh() * half - offset
