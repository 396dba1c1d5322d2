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
#: Makes one in a type, for maps of a size.
_Maker = Callable[[torch.dtype, torch.Size], Kernel]

#: For maps of how many sizes a layer keeps its packed weights.
_SIZES = 6

#: The rest of the arguments of an operation that computes nothing besides its convolution.
_ALONE: tuple[str, list[float], str] = ("none", [], "")


@contextlib.contextmanager
def packed_convolutions(model: nn.Module) -> Iterator[None]:
    """Give the convolutions of a model packed weights inside the block, where they compute on the CPU.

    A plain weight is cast (under autocast) and rearranged in every call. A packed one is made when maps of a size come
    first, and used where no gradients are asked for; the numbers are those of the plain one within the rounding of the
    type.

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


def plus_convolved(
    features: Float[Tensor, "b d _ _"], layer: nn.Module, x: Float[Tensor, "b c H W"]
) -> Float[Tensor, "b d _ _"]:
    """A map plus what a convolution makes of another one: one operation where its weight is packed.

    Args:
        features: What is added; it stays as it is.
        layer: The convolution.
        x: What it convolves.
    """
    packed = layer.forward
    return packed.plus(features, x) if isinstance(packed, _Packed) else features + layer(x)


class _Packed:
    """What a layer gives, by its packed weight.

    Args:
        plain: The layer without.
        make: Packs the layer's weight in a type for maps of a size, and gives what convolves with it.
    """

    def __init__(self, plain: Callable[[Tensor], Tensor], make: _Maker) -> None:
        self._plain, self._make = plain, make
        self._kernels: dict[tuple[torch.dtype, torch.Size], Kernel] = {}

    def __call__(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d _ _"]:
        """The layer's result."""
        dtype = _dtype(x)
        return self._kernel(dtype, x.shape)(x.to(dtype)) if _packs(dtype, x) else self._plain(x)

    def plus(self, features: Float[Tensor, "b d _ _"], x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d _ _"]:
        """A map plus the layer's result, with one rounding where both are one operation."""
        dtype = _dtype(x)
        kernel = self._kernel(dtype, x.shape) if _packs(dtype, x) else None
        if not isinstance(kernel, _Convolution) or features.dtype != dtype:
            return features + self(x)
        total = features.clone()
        kernel.add_to(total, x.to(dtype))
        return total

    def _kernel(self, dtype: torch.dtype, size: torch.Size) -> Kernel:
        # CPUs without matrix units have another form for each size: with a wrong one, a kernel rearranges the weight in
        # every call, which for 512 channels at 16² takes 15 ms and its product 0.6. That for one map serves several.
        kept = dtype, size[2:]
        if kept not in self._kernels:
            if len(self._kernels) == _SIZES:
                del self._kernels[next(iter(self._kernels))]
            with torch.autocast("cpu", enabled=False):
                self._kernels[kept] = self._make(dtype, torch.Size((1, *size[1:])))
        return self._kernels[kept]


def _maker(layer: nn.Module) -> _Maker | None:
    """What packs a layer's weight, or None where that cannot be."""
    if isinstance(layer, Upsample):
        return functools.partial(_upsampling, layer) if layer.sums.device.type == "cpu" else None
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    return functools.partial(_Convolution, layer) if layer.weight.device.type == "cpu" else None


class _Convolution:
    """Convolves as a layer does, in one type, maps of a size as others, but these fastest."""

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype, size: torch.Size) -> None:
        form = (layer.padding, layer.stride, layer.dilation, layer.groups)
        weight = torch.ops.mkldnn._reorder_convolution_weight(layer.weight.to(dtype), *form, size)
        self._arguments = (weight, None if layer.bias is None else layer.bias.to(dtype), *form)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, *self._arguments, *_ALONE)

    def add_to(self, total: Tensor, x: Tensor) -> None:
        """Add what the layer makes of a map to another one, in place."""
        torch.ops.mkldnn._convolution_pointwise_.binary(total, x, *self._arguments, "add", 1.0, None, [], None)


def _upsampling(layer: Upsample, dtype: torch.dtype, size: torch.Size) -> Kernel:
    form = ([1, 1], [0, 0], [2, 2], [1, 1], 1)  # padding, output padding, stride, dilation, groups
    weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(layer.kernel().to(dtype).contiguous(), *form, size)
    bias = None if layer.conv.bias is None else layer.conv.bias.to(dtype)
    return lambda x: torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, bias, *form, *_ALONE)


def _dtype(x: Tensor) -> torch.dtype:
    """In which type a layer computes."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _packs(dtype: torch.dtype, x: Tensor) -> bool:
    """Whether a packed weight serves for a map."""
    trained = torch.is_grad_enabled() or torch.compiler.is_compiling()
    return not trained and x.numel() > 0 and _has_kernels(dtype)


@functools.cache
def _has_kernels(dtype: torch.dtype) -> bool:
    """Whether this CPU and this PyTorch have the kernels for a type, which only a trial tells."""
    if dtype == torch.float64:
        return False
    layer = nn.utils.skip_init(nn.Conv2d, 32, 32, 1, bias=False)  # which draws no random numbers
    x = torch.ones(1, 32, 2, 2, dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        nn.init.dirac_(layer.weight)
        try:
            kernel, total = _Convolution(layer, dtype, x.shape), x.clone()
            kernel.add_to(total, x)
            return kernel(x).equal(x) and total.equal(2 * x)
        except (AttributeError, RuntimeError):  # they are no public part of PyTorch
            return False
