"""Where a training stands within an epoch of its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from vltok.errors import UserError

#: How many of this process's batches lie before the place at which other processes had each taken so many, of so many.
Moved = Callable[[int, int, int], int]


class Position:
    """How many batches of which epoch a process has taken; Lightning, to whom it is a `sampler`, tells it the epoch.

    Batches that workers have prepared but nobody has taken do not count.

    Args:
        batches: The batches of an epoch.
        order: What the samples of an epoch follow from, by names that mean something to the user.
        processes: How many processes share the epoch.
        moved: Finds a place among other processes: is given how many batches each of them had taken, how many they
            were, and the batches that an epoch had for each. None where their number changes the order of the samples.

    Attributes:
        among_others: Where it has come from another number of processes: whether the epoch goes on or starts again;
            None where their number is the same.
    """

    def __init__(self, batches: int, order: Mapping[str, int], processes: int = 1, moved: Moved | None = None) -> None:
        self.epoch = 0
        self.among_others: Literal["goes on", "starts again"] | None = None
        self._batches = batches
        self._order = order
        self._processes = processes
        self._moved = moved
        self._taken = 0
        self._loaded = False

    def set_epoch(self, epoch: int) -> None:
        """Stand at the start of an epoch, unless it is the one that a loaded position lies in."""
        if epoch != self.epoch:
            self.epoch, self._taken, self._loaded = epoch, 0, False

    def start(self) -> int:
        """Start a pass over the epoch: returns how many of its batches were taken before training was resumed."""
        if self._loaded and self._taken == self._batches:  # nothing is left of the epoch that was left
            self.set_epoch(self.epoch + 1)
        elif not self._loaded:
            self._taken = 0
        self._loaded = False
        return self._taken

    def take(self) -> None:
        """Count a batch."""
        self._taken += 1

    def align(self, accumulated: int) -> int:
        """Stand at the start of a step of so many batches, where it has come from another number of processes.

        What lies between is taken again: fewer images than those of a step.

        Returns:
            How many batches count as taken.
        """
        if self.among_others is not None and self._taken < self._batches:
            self._taken -= self._taken % accumulated
        return self._taken

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands, and what the batches follow from."""
        cut = {"processes": self._processes, "batches in an epoch": self._batches}
        return {"epoch": self.epoch, "batch": self._taken, **cut, **self._order}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Stand where another position stood; among another number of processes at that place of the order of samples.

        Where the order is another one for them, the epoch starts again.

        Raises:
            UserError: The batches are others than they were then.
        """
        order, taken = dict(self._order), state["batch"]
        before = state.get("processes", self._processes)
        if before == self._processes:
            self.among_others = None
            order["batches in an epoch"] = self._batches
        else:
            self.among_others = "starts again" if self._moved is None else "goes on"
        if self.among_others != "starts again":
            for name, value in order.items():
                if (there := state.get(name, value)) != value:
                    raise UserError(
                        f"the run that is resumed had {name} {there}, this one has {value}: resume it with the same "
                        "data and batches"
                    )
        if self.among_others is not None:
            batches = state["batches in an epoch"]
            if taken == batches:
                taken = self._batches
            else:
                taken = 0 if self._moved is None else self._moved(taken, before, batches)
                taken = min(taken, self._batches - 1)
        self.epoch, self._taken, self._loaded = state["epoch"], taken, True
