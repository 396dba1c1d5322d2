"""Steps of drawing as CUDA graphs: one call starts all kernels of a step, instead of hundreds of calls.

Axis letters: b image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Changes tensors `[b …]` as a step of all images does, none of which stands beyond the number.
Step = Callable[[Sequence[Tensor], int], Sequence[Tensor]]


class CapturedSteps:
    """Takes steps by graphs, one for each number of images and of steps that attention reads.

    A step may not wait for the device, and taken again from the same tensors it must leave the same.

    Args:
        step: The step.
        span: How many steps attention reads, where no image stands beyond a number.
    """

    def __init__(self, step: Step, span: Callable[[int], int]) -> None:
        self._step = step
        self._span = span
        self._held: list[Tensor] = []  # what the graphs read, and what they write
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, tensors: Sequence[Tensor], furthest: int) -> list[Tensor]:
        """The tensors after a step; the next call changes them."""
        if not self._held or len(self._held[0]) != len(tensors[0]):
            self._graphs.clear()
            self._held = [tensor.clone() for tensor in tensors]
        for held, tensor in zip(self._held, tensors, strict=True):
            if held is not tensor:
                held.copy_(tensor)
        span = self._span(furthest)
        with torch.cuda.device(self._held[0].device):
            if span not in self._graphs:
                self._graphs[span] = self._captured(furthest)
            self._graphs[span].replay()
        return self._held

    def _captured(self, furthest: int) -> torch.cuda.CUDAGraph:
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(2):  # kernels are loaded and chosen, which no graph may do
                self._step(self._held, furthest)
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for held, tensor in zip(self._held, self._step(self._held, furthest), strict=True):
                held.copy_(tensor)
        return graph
