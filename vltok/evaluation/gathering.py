"""Processes that share an evaluation, as torchrun starts them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import distributed

from vltok.errors import UserError
from vltok.processes import world

_Item = TypeVar("_Item")


@contextlib.contextmanager
def joined(rank: int, world_size: int, device: torch.device | str) -> Iterator[None]:
    """The processes know each other inside the block, so that `gather` gives each what all have.

    Raises:
        UserError: The processes were not started by torchrun, or something that sets what it sets.
    """
    if world_size == 1:
        yield
        return
    if "MASTER_ADDR" not in os.environ:
        raise UserError("several processes measure together only under torchrun: torchrun -m vltok evaluate …")
    device = torch.device(device)
    if device.type == "cuda" and device.index is not None:
        # NCCL puts what it gathers on the current device, which otherwise is the first one in every process
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, rank=rank, world_size=world_size)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def gather(items: Sequence[_Item]) -> list[_Item]:
    """The items of all processes, in the order of their ranks; plain values or NumPy arrays."""
    _, processes = world()
    if processes == 1:
        return list(items)
    found: list[list[_Item]] = [[] for _ in range(processes)]
    distributed.all_gather_object(found, list(items))
    return list(itertools.chain.from_iterable(found))
