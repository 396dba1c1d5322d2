"""Steps of drawing as CUDA graphs: one call starts all kernels of a step, instead of hundreds of calls.

Axis letters: b image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vltok.nn.sequence_model import Reach

#: Gives what tensors `[b …]` are after a step of all images, which reads so much of their caches.
Step = Callable[[Sequence[Tensor], Reach], Sequence[Tensor]]


class CapturedSteps:
    """Takes steps by graphs, one for each number of images and each reach; where a graph cannot be made, as they are.

    A step may not wait for the device, and taken again from the same tensors it must leave the same.

    Args:
        step: The step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._held: list[Tensor] = []  # what the graphs read, and what they write
        self._graphs: dict[Reach, torch.cuda.CUDAGraph] = {}
        self._refused = False

    def __call__(self, tensors: Sequence[Tensor], reach: Reach) -> Sequence[Tensor]:
        """The tensors after a step; the next call changes them."""
        if self._refused:
            return self._step(tensors, reach)
        if not self._held or len(self._held[0]) != len(tensors[0]):
            self._graphs.clear()
            self._held = [tensor.clone() for tensor in tensors]
        for held, tensor in zip(self._held, tensors, strict=True):
            if held is not tensor:
                held.copy_(tensor)
        with torch.cuda.device(self._held[0].device):
            if reach not in self._graphs:
                self._warm_up(reach)
                try:
                    self._graphs[reach] = self._captured(reach)
                except RuntimeError as error:
                    self._refused = True
                    reason = str(error).partition("\n")[0] or type(error).__name__
                    warnings.warn(f"no CUDA graph of a step can be made ({reason}): steps are slower", stacklevel=2)
                    return self._step(self._held, reach)
            self._graphs[reach].replay()
        return self._held

    def _warm_up(self, reach: Reach) -> None:
        """Load and choose the kernels, which no graph may do."""
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(2):
                self._step(self._held, reach)
        current.wait_stream(aside)

    def _captured(self, reach: Reach) -> torch.cuda.CUDAGraph:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # a capture that fails leaves its own stream the current one
        with torch.cuda.stream(current), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            # what is written here may be what another one is
            after = [tensor.clone() for tensor in self._step(self._held, reach)]
            for held, tensor in zip(self._held, after, strict=True):
                held.copy_(tensor)
        return graph
