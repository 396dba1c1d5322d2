"""Processes that share an evaluation: what each has seen, and what follows from what all have seen.

They are started by torchrun, and send each other what they have seen; or they are jobs that know nothing of each other,
and write it (`vltok.evaluation.parts`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import distributed

from vltok.errors import UserError
from vltok.processes import world

_Item = TypeVar("_Item")
_Figures = TypeVar("_Figures")
_Other = TypeVar("_Other")
#: What was seen, by name: plain values, bytes and NumPy arrays, and lists and dictionaries of them.
Items = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Seen(Generic[_Figures]):
    """What a process has seen, and the figures that follow from what all have seen.

    Attributes:
        items: Lists of what it has seen. Those of all processes, one after another, are the lists of a single process
            that has seen everything.
        conclude: Gives the figures that follow from such lists.
    """

    items: Items
    conclude: Callable[[Items], _Figures]

    def together(self) -> _Figures:
        """The figures of all processes that know each other; all call it."""
        return self.conclude(gather_items(self.items))

    def then(self, follow: Callable[[_Figures], _Other]) -> Seen[_Other]:
        """The same, with what follows from its figures."""
        return Seen(self.items, lambda items: follow(self.conclude(items)))

    def beside(self, name: str, other: Seen[_Other]) -> Seen[tuple[_Figures, _Other]]:
        """This and another one, whose lists get a name before theirs."""
        named = {f"{name}/{key}": values for key, values in other.items.items()}

        def conclude(items: Items) -> tuple[_Figures, _Other]:
            return self.conclude(items), other.conclude({key: items[f"{name}/{key}"] for key in other.items})

        return Seen({**self.items, **named}, conclude)


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


def gather_items(items: Items) -> Items:
    """The lists of all processes, one after another in the order of their ranks."""
    return joined_items(gather([items]))


def joined_items(parts: Sequence[Items]) -> Items:
    """The lists of several, one after another."""
    return {name: list(itertools.chain.from_iterable(part[name] for part in parts)) for name in parts[0]}
