"""The precision of arithmetic: the one place that decides it for all that encodes, decodes, draws and measures."""

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import torch

#: The types in which a tokenizer may compute, by name.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextlib.contextmanager
def computing(device: torch.device | str, precision: str = "float32") -> Iterator[None]:
    """Compute in one precision inside the block, with kernels that give the same numbers run for run.

    Args:
        device: Where to compute.
        precision: A key of `PRECISIONS`. Float32 is full; below it, layers that bear it compute in it.
    """
    dtype = PRECISIONS[precision]
    with full_float32(), _repeatable(), torch.autocast(torch.device(device).type, dtype, dtype != torch.float32):
        yield


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 in float32 inside the block.

    GPUs would compute convolutions, and where they are allowed to matrix products too, in TF32, which rounds to 10 bits
    of mantissa.
    """
    before = _switches()
    try:
        _switch({name: full for name, full in _FULL.items() if name in before})
        yield
    finally:
        _switch(before)


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


#: What each switch is set to. The older ones come first: setting them resets the newer ones, which are needed too, for
#: `torch.backends.fp32_precision` overrules the older ones.
_FULL: dict[str, Any] = {
    "cudnn.allow_tf32": False,
    "matmul": "highest",
    "cuda.matmul": "ieee",
    "cudnn.conv": "ieee",
    "cudnn.rnn": "ieee",
    "mkldnn.matmul": "ieee",
    "mkldnn.conv": "ieee",
    "mkldnn.rnn": "ieee",
}


def _switches() -> dict[str, Any]:
    """The switches that can be read."""
    found: dict[str, Any] = {}
    # PyTorch does not tell an older switch that contradicts a newer one, which then decides
    with contextlib.suppress(RuntimeError):
        found["cudnn.allow_tf32"] = torch.backends.cudnn.allow_tf32
    with contextlib.suppress(RuntimeError):
        found["matmul"] = torch.get_float32_matmul_precision()
    newer = [name for name in _FULL if name not in ("cudnn.allow_tf32", "matmul")]
    return found | {name: _operation(name).fp32_precision for name in newer}


def _switch(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if name == "cudnn.allow_tf32":
            torch.backends.cudnn.allow_tf32 = value
        elif name == "matmul":
            torch.set_float32_matmul_precision(value)
        else:
            _operation(name).fp32_precision = value


def _operation(name: str) -> Any:
    return operator.attrgetter(name)(torch.backends)
