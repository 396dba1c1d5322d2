"""Convolutions whose weights lie, for as long as a model stays as it is, as the CPU's kernels read them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vltok.nn.resampling import Upsample

#: Convolves with a packed weight.
Kernel = Callable[[Tensor], Tensor]

#: The rest of the arguments of an operation that computes nothing besides its convolution.
_ALONE: tuple[str, list[float], str] = ("none", [], "")


@contextlib.contextmanager
def packed_convolutions(model: nn.Module) -> Iterator[None]:
    """Give the convolutions of a model packed weights inside the block, where they compute on the CPU.

    A plain weight is cast (under autocast) and rearranged in every call. A packed one is made when it is first needed,
    and used where no gradients are asked for; the numbers are those of the plain one within the rounding of the type.

    Args:
        model: Its weights must not change inside the block.
    """
    makers = {layer: _maker(layer) for layer in model.modules() if "forward" not in vars(layer)}
    layers = {layer: _Packed(layer.forward, make) for layer, make in makers.items() if make is not None}
    for layer, packing in layers.items():
        vars(layer)["forward"] = packing
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


class _Packed:
    """What a layer gives, by its packed weight in each type that is asked for.

    Args:
        plain: The layer without.
        make: Packs the layer's weight in a type, and gives what convolves with it.
    """

    def __init__(self, plain: Callable[[Tensor], Tensor], make: Callable[[torch.dtype], Kernel]) -> None:
        self._plain, self._make = plain, make
        self._kernels: dict[torch.dtype, Kernel] = {}

    def __call__(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d _ _"]:
        """The layer's result."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not x.numel() or not _packs(dtype):
            return self._plain(x)
        if dtype not in self._kernels:
            with torch.autocast("cpu", enabled=False):
                self._kernels[dtype] = self._make(dtype)
        return self._kernels[dtype](x.to(dtype))


def _maker(layer: nn.Module) -> Callable[[torch.dtype], Kernel] | None:
    """What packs a layer's weight, or None where that cannot be."""
    if isinstance(layer, Upsample):
        return functools.partial(_upsampling, layer) if layer.sums.device.type == "cpu" else None
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    return functools.partial(_convolution, layer) if layer.weight.device.type == "cpu" else None


def _convolution(layer: nn.Conv2d, dtype: torch.dtype) -> Kernel:
    form = (layer.padding, layer.stride, layer.dilation, layer.groups)
    weight = torch.ops.mkldnn._reorder_convolution_weight(layer.weight.to(dtype), *form)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    return lambda x: torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *form, *_ALONE)


def _upsampling(layer: Upsample, dtype: torch.dtype) -> Kernel:
    form = ([1, 1], [0, 0], [2, 2], [1, 1], 1)  # padding, output padding, stride, dilation, groups
    weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(layer.kernel().to(dtype).contiguous(), *form)
    bias = None if layer.conv.bias is None else layer.conv.bias.to(dtype)
    return lambda x: torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, bias, *form, *_ALONE)


@functools.cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether this CPU and this PyTorch have the kernels for a type, which only a trial tells."""
    if dtype == torch.float64:
        return False
    layer = nn.utils.skip_init(nn.Conv2d, 32, 32, 1, bias=False)  # which draws no random numbers
    x = torch.ones(1, 32, 2, 2, dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        nn.init.dirac_(layer.weight)
        try:
            return _convolution(layer, dtype)(x).equal(x)
        except (AttributeError, RuntimeError):  # they are no public part of PyTorch
            return False
