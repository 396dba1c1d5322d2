"""Batches of code sequences, by number of sequences or by a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
from jaxtyping import Int
from torch.utils.data import Dataset

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.loading.plans import even_edges, in_batches, number_of_batches
from vltok.loading.position import Position
from vltok.loading.workers import Failure, load, share, worker_loader
from vltok.sequences.source import CodeSequences


@final
class CodeLoader:
    """Batches of a data set for one of several processes, in an order that can be taken up again in mid-epoch.

    All processes cut one order of all samples into the same batches, and take them in turn: no sample is lost or
    repeated, every process has the same number of batches in every epoch, and no batch is above its limit. A batch has
    one grid of regions. Batches of a grid differ in cost by at most about the longest sequence (by one, for batches of
    so many sequences); a grid of few samples has one small batch.

    Args:
        sequences: The samples.
        batch_size: The most sequences of a batch; or
        token_budget: the most tokens of a batch.
        shuffle: Whether each epoch has another order, or all that of the input.
        shuffle_window: Shuffle the shards and then only samples that stand within so many of each other, so that
            reading moves through few shards at a time; None shuffles all samples.
        seed: What the orders follow from.
        rank: Which of the processes this is.
        world_size: How many processes there are.
        workers: Subprocesses that read; 0 reads in this one.

    Raises:
        UserError: Not one of the two limits is given, or it is too small, or there are too few samples for the
            number of processes.
    """

    def __init__(
        self,
        sequences: CodeSequences,
        *,
        batch_size: int | None = None,
        token_budget: int | None = None,
        shuffle: bool = True,
        shuffle_window: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        if (batch_size is None) == (token_budget is None):
            raise UserError("codes need either batch_size (sequences) or token_budget (tokens), and not both")
        self._sequences = sequences
        self._shuffle, self._window, self._seed = shuffle, shuffle_window, seed
        self._rank, self._world_size, self._workers = rank, world_size, workers
        self._costs = np.ones(len(sequences), dtype=np.int64) if token_budget is None else sequences.lengths
        longest = int(self._costs.max())
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {batch_size}")
        if token_budget is not None and token_budget < 2 * longest - 1:
            raise UserError(
                f"token_budget must be at least {2 * longest - 1}, about twice the longest sequence, not {token_budget}"
            )
        self._grids = sequences.grid_numbers()
        counts = np.bincount(self._grids)
        costs, longest_of = np.zeros_like(counts), np.zeros_like(counts)
        np.add.at(costs, self._grids, self._costs)
        np.maximum.at(longest_of, self._grids, self._costs)
        # a batch costs less than the mean of its grid's and the longest sample together
        rooms = (token_budget or batch_size or 0) - longest_of + 1
        batches = number_of_batches(counts, costs, rooms, world_size)
        if batches is None:
            raise UserError(f"{len(sequences)} samples are too few for {world_size} processes")
        self._batches_of, self._batches = batches, int(batches.sum())
        #: Where Lightning tells the epoch.
        self.sampler = Position(
            len(self),
            {"seed": seed, "sequences": len(sequences)},
            world_size,
            # of one grid, any number of processes cuts one order evenly into batches
            None if len(counts) > 1 else lambda taken, before, batches: taken * len(self) // batches,
        )
        #: Lightning asks for this next to `sampler`.
        self.batch_sampler = None

    def __len__(self) -> int:
        """The number of batches that this process has in every epoch."""
        return self._batches // self._world_size

    def __iter__(self) -> Iterator[Codes]:
        """An epoch; or, after `load_state_dict`, the rest of the one that was left."""
        taken = self.sampler.start()
        left = self.plan(self.sampler.epoch)[taken:]
        loader = worker_loader(_Read(self._sequences), self._workers, sampler=left, batch_size=None)
        for codes in load(loader):
            self.sampler.take()
            yield codes
        self.sampler.set_epoch(self.sampler.epoch + 1)  # a plain loop over epochs gets other orders too

    def plan(self, epoch: int) -> list[Int[np.ndarray, " b"]]:
        """The samples of each batch that this process has in an epoch."""
        batches = in_batches(
            self._order(epoch),
            self._grids,
            lambda grid, order: even_edges(self._costs[order], int(self._batches_of[grid])),
        )
        return batches[self._rank :: self._world_size]

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands; batches that workers have prepared beforehand do not count."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            UserError: The batches would be others than they were then.
        """
        if "world_size" in state:  # of vltok 0.1
            processes = state["world_size"]
            state = {**state, "processes": processes, "batches in an epoch": state["batches"] // processes}
        self.sampler.load_state_dict(state)

    def _order(self, epoch: int) -> Int[np.ndarray, " n"]:
        count = len(self._sequences)
        if not self._shuffle:
            return np.arange(count)
        generator = np.random.default_rng([self._seed, epoch])
        if self._window is None:
            return generator.permutation(count)
        starts = self._sequences.shard_starts
        shards = generator.permutation(len(starts) - 1)
        order = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in shards])
        return order[np.argsort(np.arange(count) // self._window + generator.random(count))]


class _Read(Dataset):
    """What came of reading some samples of a data set: an error must not be lost on the way from a worker."""

    def __init__(self, sequences: CodeSequences) -> None:
        self._sequences = sequences

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> Codes | Failure:
        try:
            codes = self._sequences[indices]
            share(codes.ids, codes.lengths, codes.grains, codes.labels, codes.embeddings)
        except UserError as error:
            return Failure(str(error))
        return codes
