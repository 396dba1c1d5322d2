"""A quantizer in stages, each of which quantizes what those before it have left over."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.errors import whole_number
from vltok.interfaces import Quantized, Quantizer
from vltok.tokenizers.straight_through import straight_through


class ResidualQuantizer(Quantizer):
    """Stage after stage quantizes the rest of a vector; a code has an id of each stage, and its vector is their sum.

    As RQ-VAE (Lee et al. 2022, section 3.1, https://arxiv.org/abs/2203.01941), with a codebook for each stage as in
    SoundStream (https://arxiv.org/abs/2107.03312). The loss is the mean of the stages' losses. The gradient passes
    straight through all stages at once: a codebook that is trained by it, such as that of `gumbel`, learns nothing.

    Args:
        quantizer: The first stage; the others start as its copies.
        codebooks: How many stages there are, at least 2.

    Raises:
        UserError: Fewer than 2 stages.
    """

    def __init__(self, quantizer: Quantizer, codebooks: int = 4) -> None:
        super().__init__()
        self.codebooks = whole_number("quantizer.codebooks", codebooks, 2, "; for one, give the quantizer itself")
        self.stages: Iterable[Any] = nn.ModuleList(
            [quantizer, *(copy.deepcopy(quantizer) for _ in range(codebooks - 1))]
        )
        self._size, self._dimension = quantizer.size, quantizer.dimension

    @property
    def size(self) -> int:
        return self._size

    @property
    def dimension(self) -> int:
        return self._dimension

    def forward(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None = None) -> Quantized:
        rest, found = vectors, list[Quantized]()
        for stage in self.stages:
            found.append(stage(rest, weights))
            rest = rest - found[-1].vectors.detach()
        total = torch.stack([each.vectors for each in found]).sum(dim=0)
        loss = torch.stack([each.loss for each in found]).mean()
        return Quantized(torch.stack([each.ids for each in found], dim=-1), straight_through(total, vectors), loss)

    def lookup(self, ids: Int[Tensor, "b H W q"]) -> Float[Tensor, "b c H W"]:
        stages = zip(self.stages, ids.unbind(dim=-1), strict=True)
        return torch.stack([stage.lookup(each) for stage, each in stages]).sum(dim=0)
