"""What turns a module of vector-quantize-pytorch into a quantizer of vltok.

The library's modules read a row of vectors, each of which counts the same. In vltok a coarse code stands on several
cells, and is to count once: the library is given one of its copies, and what it answers goes to all of them.

Axis letters: b image, c channel, H W grid of codes, n code, q id of a code (no axis where there is one codebook).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.interfaces import Quantized, Quantizer
from vltok.processes import mean_over_processes


class WrappedQuantizer(Quantizer):
    """A quantizer of the library, which reads each code once.

    It computes in float32, whatever autocast says. Weights must be those of copies on aligned squares, as `dq-vae` lays
    codes; a place of weight 0 teaches nothing, and gets the code of another one. How many codes there are is read back
    from a GPU once a call with weights.

    Args:
        library: The module of the library.
        size: Number of entries of each codebook.
        dimension: Width of a code's vector.
        codebooks: How many ids a code has.
    """

    def __init__(self, library: nn.Module, size: int, dimension: int, codebooks: int = 1) -> None:
        super().__init__()
        self.library = library
        self.codebooks = codebooks
        self._size, self._dimension = size, dimension

    @property
    def size(self) -> int:
        return self._size

    @property
    def dimension(self) -> int:
        return self._dimension

    def forward(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None = None) -> Quantized:
        cells = vectors.float().movedim(1, -1)
        rows, copies = cells.flatten(0, 2), None
        if weights is not None:
            first, copies = _first_copies(weights[:, 0])
            rows = cells[first]
        with torch.autocast(vectors.device.type, enabled=False):
            chosen, ids, loss = self._read(rows[None])
            chosen, ids = chosen[0], ids[0].long()
            if not self.training:  # what `decode` finds, to the last digit
                chosen = self._vectors(ids) + (chosen - chosen.detach())
            else:  # a process that has more codes than others counts for more
                count = loss.new_full((), len(rows))
                loss = loss * (count / mean_over_processes(count))
        if copies is not None:
            chosen, ids = chosen[copies], ids[copies]
        grid = cells.shape[:3]
        chosen = chosen.view(*grid, -1).movedim(-1, 1).contiguous()
        return Quantized(ids.view(*grid, *ids.shape[1:]), chosen, loss)

    def lookup(self, ids: Int[Tensor, "b H W *q"]) -> Float[Tensor, "b c H W"]:
        with torch.autocast(ids.device.type, enabled=False):
            vectors = self._vectors(ids.long().flatten(0, 2))
        return vectors.view(*ids.shape[:3], -1).movedim(-1, 1).contiguous()

    @abstractmethod
    def _read(
        self, vectors: Float[Tensor, "1 n c"]
    ) -> tuple[Float[Tensor, "1 n c"], Int[Tensor, "1 n *q"], Float[Tensor, ""]]:
        """The codes' vectors, through which the gradient passes, their ids, and the mean loss of a code."""

    @abstractmethod
    def _vectors(self, ids: Int[Tensor, " n *q"]) -> Float[Tensor, "n c"]:
        """The vectors of codes."""


def _first_copies(weights: Float[Tensor, "b H W"]) -> tuple[Bool[Tensor, "b H W"], Int[Tensor, " cells"]]:
    """Which cells are the top left of a code's square, and of every cell, which of these is that of its code."""
    side = weights.rsqrt().round().where(weights > 0, 1).long()
    height, width = weights.shape[1:]
    down = torch.arange(height, device=weights.device)[:, None]
    across = torch.arange(width, device=weights.device)
    top, left = down - down % side, across - across % side
    first = (top == down) & (left == across) & (weights > 0)
    place = first.flatten().cumsum(0).view(first.shape) - 1
    image = torch.arange(len(weights), device=weights.device)[:, None, None]
    return first, place[image, top, left].clamp(min=0).flatten()
