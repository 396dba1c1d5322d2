"""What a training step of each recipe of the paper takes of a GPU's memory, computed without one.

The step is carried out by tensors that have a size and a device, but no values; at every operation those are counted
that live: weights, gradients, the optimizer's moments, what the forward pass keeps for the backward one, and what is
under way. What kernels take for themselves and what the allocator cannot give again comes on top, a tenth or so, and
half a GiB for CUDA.

    python -m tests.benchmarks.memory

writes into the head of each recipe what it takes, and how it fits a GPU of 24 GB.
"""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.recipe_steps import PAPER_SIZE, batch_of, objective, size_of, train, trains_prior
from vltok.codes import Codes, CodeSpec
from vltok.nn import attention
from vltok.pictures.images import ImageBatch
from vltok.priors.global_local import GlobalLocal
from vltok.testing import PretendedDevice
from vltok.tokenizers import gates
from vltok.tokenizers.gates import EntropyGate
from vltok.training import TokenizerTraining
from vltok.training.finiteness import FiniteWatch
from vltok.training.objective import Objective

from .table import Row, Setting

GIB = 2**30
#: What the allocator gives is a multiple of it.
_BLOCK = 512
_LOCAL_LENGTHS = GlobalLocal._local_lengths
#: What may be filled of the paper's 24 GB.
FITS = 20.0
_TOLD = re.compile(r"(?m)^# ([\d.]+M parameters); .*\n(?:# On 24 GB: .*\n)?")


def rows(setting: Setting) -> Iterator[Row]:
    """Of a recipe of each kind; beside what it takes, where there is a GPU to ask."""
    names = ("imagenet_dq", "imagenet_dq_transformer", "imagenet_vqgan_gpt")
    for path in PAPER_SIZE:
        if path.stem in (names[-1:] if setting.tiny else names):
            computed, known = memory(path), ""
            if setting.device == "cuda":
                known = f"measured {measured(path):.1f} GiB"
            yield Row("memory of a training step", f"{path.stem}, {told(path)}", f"{computed:.1f} GiB, computed", known)


def measured(path: Path, half: bool = True) -> float:
    """GiB that a step takes on the GPU at hand."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train(objective(path, "cuda"), batch_of(path).to("cuda"), "cuda", half)
    return (torch.cuda.max_memory_allocated() - before) / GIB


def told(path: Path) -> str:
    """What a step of a recipe is for."""
    return f"{size_of(path):,} {'tokens' if trains_prior(path) else 'images'}"


def lines(path: Path) -> str:
    """What the head of a recipe says of memory: what a step takes, and what to set for it to fit."""
    size, taken = size_of(path), memory(path)
    said = f"a step of {told(path)} takes {taken:.1f} GiB, computed; its time has not been measured.\n"
    if taken <= FITS:
        return said
    parts, taken = next((n, part) for n in (2, 3, 5, 6, 10) if (part := memory(path, size // n)) <= FITS)
    option = "token_budget" if trains_prior(path) else "batch_size"
    remedy = f"--data.{option} {size // parts} --trainer.accumulate_grad_batches {parts}"
    return f"{said}# On 24 GB: {remedy}, which takes {taken:.1f} GiB.\n"


def main() -> None:
    for path in PAPER_SIZE:
        head = lines(path)
        text = path.read_text(encoding="utf-8")
        path.write_text(_TOLD.sub(lambda found, head=head: f"# {found[1]}; {head}", text), encoding="utf-8")
        print(f"{path.stem}: {head}", end="", flush=True)


def memory(path: Path, size: int | None = None) -> float:
    """GiB of a recipe's step at its full size, or of as many images or tokens."""
    return peak(objective(path, "meta"), batch_of(path, size)) / GIB


def peak(training: Objective, batch: ImageBatch | Codes, half: bool = True) -> int:
    """The most bytes that tensors take in two steps of training: the first has no moments yet.

    Args:
        training: What trains, on the device ``meta``.
        batch: What it trains on, on the host.
        half: Whether matrix products are in bfloat16.
    """
    with without_values(training), Counted(PretendedDevice.name) as counted:
        counted.note(list(training.parameters()), list(training.buffers()))
        train(training, batch.to(PretendedDevice.name), PretendedDevice.name, half)
    return counted.most


@contextlib.contextmanager
def without_values(training: Objective) -> Iterator[None]:
    """Within the block, what trains is on a pretended GPU, and its tensors have sizes, but no values.

    Args:
        training: What trains, on the device ``meta``.
    """
    with PretendedDevice():  # PyTorch knows the device from here on
        pass
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autograd.set_multithreading_enabled(False),
        # which codes there are, tensors without values do not know
        mock.patch.object(Codes, "from_code_map", _all_codes),
        mock.patch.object(TokenizerTraining, "_log_training"),
        mock.patch.object(FiniteWatch, "note"),
        mock.patch.object(FiniteWatch, "look"),
        mock.patch.object(EntropyGate, "calibrated", True),
        mock.patch.object(gates, "entropy_map", _flat),
        # these are on the host, and have values
        mock.patch.object(GlobalLocal, "_local_lengths", _local_lengths),
        mock.patch.object(attention, "backend", lambda *_: _attend),
    ):
        _move(training, PretendedDevice.name)
        yield


class Counted(TorchDispatchMode):
    """Counts what the tensors of a device take that live.

    Attributes:
        most: The most bytes that it has been.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.most = 0
        self._now = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def note(self, *made: Any) -> None:
        """Count tensors that were made elsewhere."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device.type == self.device:
                storage = tensor.untyped_storage()
                if storage not in self._known:
                    self._known.add(storage)
                    size = -(-storage.nbytes() // _BLOCK) * _BLOCK
                    weakref.finalize(storage, self._free, size)
                    self._now += size
        self.most = max(self.most, self._now)

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        self.note(found)
        return found

    def _free(self, size: int) -> None:
        self._now -= size


def _move(module: nn.Module, device: str) -> None:
    """What `Module.to_empty` does, which tensors without values do not bear."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            value = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            part.register_parameter(name, nn.Parameter(value, parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))


def _all_codes(code_map: Tensor, grains: Tensor, spec: CodeSpec) -> Codes:
    """As many as there could be."""
    count = code_map[0].numel()
    return Codes(code_map.flatten(), torch.full((len(code_map),), count, device=code_map.device), grains)


def _flat(images: Tensor, region: int, bins: Any) -> Tensor:
    """A map of entropies, which itself takes little."""
    return images.new_zeros(len(images), images.shape[2] // region, images.shape[3] // region)


def _local_lengths(prior: GlobalLocal, codes: Codes) -> list[int]:
    with unset_fake_temporarily():
        return _LOCAL_LENGTHS(prior, codes)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, packing: attention.Packing, dropout: float, causal: bool
) -> Tensor:
    """FlashAttention, which keeps no attention weights, as xformers' kernels keep none."""
    return attention.varlen_attention(query, key, value, packing, 0.0, causal)


if __name__ == "__main__":
    main()
