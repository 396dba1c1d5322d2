"""Measuring two ways of one work against each other, and the table that says what came out.

Both are timed in turns, so that whatever slows the machine slows both; the ratio is that of each turn.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """What all benchmarks are run with.

    Attributes:
        device: Where to compute, such as ``cpu``.
        tiny: Sizes at which a run takes seconds and its figures say nothing: for the tests.
        turns: How often each work is timed.
        full: Whether also what takes many minutes on a CPU has its full size.
    """

    device: str = "cpu"
    tiny: bool = False
    turns: int = 5
    full: bool = False

    @property
    def precisions(self) -> tuple[torch.dtype, ...]:
        """The types in which models are compared."""
        return (torch.bfloat16,) if self.tiny else (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        work: What is done.
        size: At which size.
        ours: What vltok's way comes to.
        baseline: What it is measured against, and what that comes to.
        ratios: How many times ours is better, turn by turn; empty where there is no baseline.
        target: The ratio that is wanted; None where none is.
    """

    work: str
    size: str
    ours: str
    baseline: str = ""
    ratios: Sequence[float] = ()
    target: float | None = None

    def cells(self) -> list[str]:
        """The row's cells."""
        if not self.ratios:
            return [self.work, self.size, self.ours, self.baseline, "", ""]
        middle = statistics.median(self.ratios)
        ratio = f"{middle:.2f} ({min(self.ratios):.2f}–{max(self.ratios):.2f})"
        wanted = "" if self.target is None else f"{self.target:.2f} {'met' if middle >= self.target else 'missed'}"
        return [self.work, self.size, self.ours, self.baseline, ratio, wanted]


def in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], setting: Setting) -> tuple[list[float], list[float]]:
    """Seconds of each turn of both, after one that warms up."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(1 + setting.turns):
        for work, seconds in zip((ours, theirs), times, strict=True):
            taken = timed(work, setting.device)
            if turn:
                seconds.append(taken)
    return times


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds that a call takes, until the device is through with it."""
    _wait(device)
    begin = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begin


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How many times as long theirs takes, turn by turn."""
    return [their / our for our, their in zip(ours, theirs, strict=True)]


def name(dtype: torch.dtype) -> str:
    """What a type of numbers is called."""
    return str(dtype).removeprefix("torch.")


@contextmanager
def precision(dtype: torch.dtype, device: str) -> Iterator[None]:
    """Inference in a type of numbers: by autocast below float32."""
    with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        yield


def markdown(rows: Sequence[Row], setting: Setting) -> str:
    """The machine, and the table."""
    head = ["work", "size", "vltok", "baseline", "ratio (least–most)", "target"]
    lines = [machine(setting.device), "", _line(head), _line(["---"] * len(head))]
    return "\n".join(lines + [_line(row.cells()) for row in rows]) + "\n"


def machine(device: str) -> str:
    """Where and with what figures were measured."""
    place = torch.cuda.get_device_name() if device == "cuda" else f"{_processor()}, {torch.get_num_threads()} threads"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return f"{time.strftime('%Y-%m-%d')}, {place}; {packages}; load {os.getloadavg()[0]:.1f}"


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
