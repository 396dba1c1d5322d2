"""The state of random numbers, so that a resumed training draws what an uninterrupted one would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import distributed

from vltok.errors import UserError
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
    """Keeps the random state of each process in a checkpoint, and gives each its own back."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Add the states of all processes to a checkpoint; all must take part."""
        processes = world()[1]
        states: list[Any] = [random_state()] * processes
        if processes > 1:
            distributed.all_gather_object(states, states[0])
        checkpoint[_KEY] = states

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Go on from this process's state in a checkpoint, which an old one may lack.

        Raises:
            UserError: The checkpoint is of another number of processes.
        """
        rank, processes = world()
        states = checkpoint.get(_KEY)
        if states is None:
            return
        if len(states) != processes:
            raise UserError(
                f"the run that is resumed had {len(states)} processes, this one has {processes}: resume it with "
                "trainer.devices and trainer.num_nodes that come to as many"
            )
        self._loaded = states[rank]
        set_random_state(self._loaded)

    def start(self, within_epoch: bool) -> None:
        """Go on from there again in the middle of an epoch: what the start of its loaders drew, they drew before."""
        if self._loaded is not None and within_epoch:
            set_random_state(self._loaded)
        self._loaded = None
