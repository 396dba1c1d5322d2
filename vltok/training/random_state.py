"""The state of random numbers, so that a resumed training draws what an uninterrupted one would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import distributed

from vltok.processes import world

_KEY = "random_states"


def random_state() -> dict[str, Any]:
    """The state of this process, of torch, NumPy and Python, as tensors and plain values."""
    numpy = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    state = {
        "cpu": torch.get_rng_state(),
        "numpy": [numpy["bit_generator"], keys, numpy["state"]["pos"], numpy["has_gauss"], numpy["gauss"]],
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Go on from a state; one of a device that is not here is left out."""
    torch.set_rng_state(state["cpu"])
    generator, keys, *rest = state["numpy"]
    np.random.set_state((generator, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class RandomStates:
    """Keeps the random state of each process in a checkpoint, and gives each its own back.

    A process that was not there then goes on from the seed that it was started with.

    Attributes:
        processes: How many processes the loaded checkpoint is of; None where none is loaded, or it does not say.
    """

    def __init__(self) -> None:
        self.processes: int | None = None
        self._loaded: dict[str, Any] | None = None

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Add the states of all processes to a checkpoint; all must take part."""
        processes = world()[1]
        states: list[Any] = [random_state()] * processes
        if processes > 1:
            distributed.all_gather_object(states, states[0])
        checkpoint[_KEY] = states

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Go on from this process's state in a checkpoint, which an old one may lack."""
        states, (rank, _) = checkpoint.get(_KEY), world()
        self.processes = None if states is None else len(states)
        if states is not None and rank < len(states):
            self._loaded = states[rank]
            set_random_state(self._loaded)

    def start(self, within_epoch: bool) -> None:
        """Go on from there again in the middle of an epoch: what the start of its loaders drew, they drew before."""
        if self._loaded is not None and within_epoch:
            set_random_state(self._loaded)
        self._loaded = None
