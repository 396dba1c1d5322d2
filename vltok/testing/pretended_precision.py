"""Automatic mixed precision on the pretended device, by CUDA's rules: which operations compute in the lower precision,
and which in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

_KEY = "AutocastPrivateUse1"
# fmt: off
#: In the lower precision: matrix products, and what is made of them.
_LOWER = [
    "_convolution", "_cudnn_rnn", "_scaled_dot_product_flash_attention", "_thnn_fused_gru_cell",
    "_thnn_fused_lstm_cell", "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "conv1d",
    "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution",
    "cudnn_convolution", "cudnn_convolution_transpose", "einsum", "gru_cell", "linalg_multi_dot", "linalg_vecdot",
    "linear", "lstm_cell", "matmul", "mm", "mv", "prelu", "rnn_relu_cell", "rnn_tanh_cell",
    "scaled_dot_product_attention",
]
#: In the widest type of what they are given; all others, which lose digits or overflow, in float32.
_WIDEST = [
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "grid_sampler", "index_put", "scatter_add", "tensordot",
    "vdot",
]
# fmt: on


def register() -> torch.library.Library:
    """Give PyTorch a rule for each operation for which CUDA has one; what is given back must stay."""
    rules = torch.library.Library("aten", "IMPL")
    for written in torch._C._dispatch_get_all_op_names():
        if written.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(written, "AutocastCUDA"):
            name, _, overload = written.removeprefix("aten::").partition(".")
            operation = getattr(getattr(torch.ops.aten, name), overload or "default")
            dtype = _lower if name in _LOWER else _widest if name in _WIDEST else _single
            rules.impl(written.removeprefix("aten::"), _converting(operation, dtype), _KEY)
    return rules


def _converting(operation: Callable[..., Any], dtype: Callable[[Sequence[Tensor]], torch.dtype]) -> Callable[..., Any]:
    """An operation on tensors that are first converted to the type that is chosen for them."""
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _KEY))

    def convert(*args: Any, **kwargs: Any) -> Any:
        given = [value for value in tree_leaves((args, kwargs)) if _counts(value)]
        chosen = dtype(given) if given else None
        with torch._C._ExcludeDispatchKeyGuard(keys):
            converted = tree_map(lambda value: value.to(chosen) if _counts(value) else value, (args, kwargs))
            return operation(*converted[0], **converted[1])

    return convert


def _lower(given: Sequence[Tensor]) -> torch.dtype:
    return torch.get_autocast_dtype(given[0].device.type)


def _widest(given: Sequence[Tensor]) -> torch.dtype:
    return max((value.dtype for value in given), key=lambda dtype: torch.finfo(dtype).bits)


def _single(given: Sequence[Tensor]) -> torch.dtype:
    return torch.float32


def _counts(value: object) -> bool:
    """Whether it is of those that are converted: real numbers of the device, of at most single precision."""
    if not isinstance(value, Tensor) or value.device.type == "cpu":
        return False
    return value.is_floating_point() and value.dtype != torch.float64
