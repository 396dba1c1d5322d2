"""Where a training stands within an epoch of its data."""

from __future__ import annotations

from collections.abc import Mapping

from vltok.errors import UserError


class Position:
    """How many batches of which epoch a process has taken; Lightning, to whom it is a `sampler`, tells it the epoch.

    Batches that workers have prepared but nobody has taken do not count.

    Args:
        batches: The batches of an epoch.
        order: What the batches of an epoch follow from, by names that mean something to the user.
    """

    def __init__(self, batches: int, order: Mapping[str, int]) -> None:
        self.epoch = 0
        self._batches = batches
        self._order = order
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

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands, and what the batches follow from."""
        return {"epoch": self.epoch, "batch": self._taken, **self._order}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Stand where another position stood.

        Raises:
            UserError: The batches are others than they were then.
        """
        for name, value in self._order.items():
            if state[name] != value:
                raise UserError(
                    f"the run that is resumed had {name} {state[name]}, this one has {value}: resume it with the same "
                    "data, batches and number of processes"
                )
        self.epoch, self._taken, self._loaded = state["epoch"], state["batch"], True
