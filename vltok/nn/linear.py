"""Linear layers of sequence models, and how they lie in memory while images are drawn."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer that may be of lower precision than what it reads, as when sampling in bfloat16."""

    def forward(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """The products of some rows, in the layer's own type."""
        if not torch.is_autocast_enabled(hidden.device.type):  # autocast chooses the type, and would cast back
            hidden = hidden.to(self.weight.dtype)
        return F.linear(hidden, self.weight, self.bias)


class PackedLinear(nn.Module):
    """What another linear layer gives, for inference on the CPU.

    A kernel that is given a plain weight rearranges it in every call, which for few rows takes longer than the product.

    Args:
        layer: The other one. A weight that has the type already is shared.
        dtype: The type of the weight and of what is given.

    Attributes:
        weight: In float32 the plain one, which serves single rows; else the packed one, to hold no second copy.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight: Tensor = layer.weight.detach().to(dtype)
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        if dtype != torch.float32:
            self.weight = self._packed

    def forward(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """The products of some rows, in the layer's own type."""
        if hidden.dtype != self.weight.dtype:
            hidden = hidden.to(self.weight.dtype)
        if hidden.shape[0] == 1 and hidden.dtype == torch.float32:
            return F.linear(hidden, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(hidden, self._packed, self.bias, "none", [], "")

    @functools.cached_property
    def _packed(self) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self.weight)


@functools.cache
def packs(dtype: torch.dtype) -> bool:
    """Whether this CPU and this PyTorch have the kernels for a type, which only a trial tells."""
    layer = nn.utils.skip_init(Linear, 32, 32, bias=False, dtype=dtype)  # which draws no random numbers
    nn.init.eye_(layer.weight)
    hidden = torch.ones(2, 32, dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        try:
            return PackedLinear(layer, dtype)(hidden).equal(hidden)
        except (AttributeError, RuntimeError):  # they are no public part of PyTorch
            return False
