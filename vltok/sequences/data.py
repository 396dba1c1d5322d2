"""Code shards as training data: batches of `Codes`, by number of sequences or by a budget of tokens."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import lightning.pytorch as pl
import numpy as np
from jaxtyping import Int
from torch.utils.data import Dataset

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError, check_seed
from vltok.loading.checks import check_at_least, check_workers
from vltok.loading.position import Position
from vltok.loading.workers import Failure, load, share, worker_loader
from vltok.processes import world
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.shards import codes_of, parse_tar_sample


@final
class CodeDataset(Dataset):
    """The samples of a folder that `vltok tokenize` wrote, read from its tar shards as they are asked for.

    Args:
        root: The folder.

    Attributes:
        manifest: What the folder holds.
        lengths: The code length of every sample, `[n]`.
        shard_starts: The first sample of each shard, with the end of the last, `[shards + 1]`.

    Raises:
        UserError: The folder holds no whole export of tar shards, or pictures of several sizes.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.manifest = CodeManifest.read(self.root)
        self.manifest.check_shards(self.root)
        with ThreadPoolExecutor() as readers:  # a minute at the start is less than a training on damaged codes
            list(readers.map(functools.partial(self.manifest.check_content, self.root), self.manifest.shards))
        if self.manifest.spec.gridded and self.manifest.spec.regions is None:
            raise UserError(f"the codes of {root} are of pictures of several sizes, which do not go into one batch")
        index = self.manifest.read_index(self.root)
        self._places, self.lengths = index[:, :2], index[:, 2]
        self.shard_starts = np.cumsum([0, *(shard.samples for shard in self.manifest.shards)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> Codes:
        """The codes of some samples, in the order asked for.

        Raises:
            UserError: A shard is damaged.
        """
        samples: list[Any] = [None] * len(indices)
        shards = np.searchsorted(self.shard_starts, indices, side="right") - 1
        for shard in np.unique(shards):
            path = self.root / self.manifest.shards[shard].name
            try:
                with path.open("rb", buffering=0) as file:
                    for place in np.flatnonzero(shards == shard):
                        start, size = self._places[indices[place]]
                        file.seek(start)
                        samples[place] = parse_tar_sample(file.read(size))
            except OSError as error:
                raise UserError(f"{path} cannot be read any more: {error.strerror}") from error
        return codes_of(samples, self.manifest.labelled).validate(self.manifest.spec)


@final
class CodeLoader:
    """Batches of a data set for one of several processes, in an order that can be taken up again in mid-epoch.

    All processes cut one order of all samples into the same batches, and take them in turn: no sample is lost or
    repeated, every process has the same number of batches in every epoch, and no batch is above its limit. Batches
    differ in cost by at most about the longest sequence (by one, for batches of so many sequences).

    Args:
        dataset: The samples.
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
        dataset: CodeDataset,
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
        self._dataset = dataset
        self._shuffle, self._window, self._seed = shuffle, shuffle_window, seed
        self._rank, self._world_size, self._workers = rank, world_size, workers
        self._costs = np.ones(len(dataset), dtype=np.int64) if token_budget is None else dataset.lengths
        total, longest = int(self._costs.sum()), int(self._costs.max())
        # Batch j holds the samples that start in [j·w, (j + 1)·w) of the costs laid end to end: it costs less than
        # w + longest, and it is not empty while w ≥ longest.
        if token_budget is None and batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {batch_size}")
        if token_budget is not None and token_budget < 2 * longest - 1:
            raise UserError(
                f"token_budget must be at least {2 * longest - 1}, about twice the longest sequence, not {token_budget}"
            )
        room = (token_budget or batch_size) - longest + 1
        self._batches = world_size * -(-total // (room * world_size))
        if total < self._batches * longest:
            raise UserError(f"{len(dataset)} samples are too few for {world_size} processes")
        #: Where Lightning tells the epoch.
        self.sampler = Position(len(self), {"seed": seed, "batches": self._batches, "world_size": world_size})
        #: Lightning asks for this next to `sampler`.
        self.batch_sampler = None

    def __len__(self) -> int:
        """The number of batches that this process has in every epoch."""
        return self._batches // self._world_size

    def __iter__(self) -> Iterator[Codes]:
        """An epoch; or, after `load_state_dict`, the rest of the one that was left."""
        taken = self.sampler.start()
        left = self.plan(self.sampler.epoch)[taken:]
        loader = worker_loader(_Read(self._dataset), self._workers, sampler=left, batch_size=None)
        for codes in load(loader):
            self.sampler.take()
            yield codes
        self.sampler.set_epoch(self.sampler.epoch + 1)  # a plain loop over epochs gets other orders too

    def plan(self, epoch: int) -> list[Int[np.ndarray, " b"]]:
        """The samples of each batch that this process has in an epoch."""
        order = self._order(epoch)
        starts = np.cumsum(self._costs[order]) - self._costs[order]
        # the exact form of ⌊start / (total / batches)⌋
        batches = starts * self._batches // int(self._costs.sum())
        edges = np.searchsorted(batches, np.arange(self._batches + 1))
        mine = range(self._rank, self._batches, self._world_size)
        return [order[edges[batch] : edges[batch + 1]] for batch in mine]

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands; batches that workers have prepared beforehand do not count."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            UserError: The batches would be others than they were then.
        """
        self.sampler.load_state_dict(state)

    def _order(self, epoch: int) -> Int[np.ndarray, " n"]:
        count = len(self._dataset)
        if not self._shuffle:
            return np.arange(count)
        generator = np.random.default_rng([self._seed, epoch])
        if self._window is None:
            return generator.permutation(count)
        starts = self._dataset.shard_starts
        shards = generator.permutation(len(starts) - 1)
        order = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in shards])
        return order[np.argsort(np.arange(count) // self._window + generator.random(count))]


class _Read(Dataset):
    """What came of reading some samples of a data set: an error must not be lost on the way from a worker."""

    def __init__(self, dataset: CodeDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> Codes | Failure:
        try:
            codes = self._dataset[indices]
            share(codes.ids, codes.lengths, codes.grains, codes.labels)
        except UserError as error:
            return Failure(str(error))
        return codes


@final
class CodeData(pl.LightningDataModule):
    """Code sequences that `vltok tokenize` wrote, in batches of `Codes`.

    Args:
        root: The folder of training codes.
        validation: A folder of codes to validate on, of the same tokenizer; None validates on nothing.
        batch_size: The most sequences of a batch in each process; or
        token_budget: the most tokens of a batch in each process: batches have nearly as many.
        shuffle_window: Shuffle only samples that stand within so many of each other (after shuffling the shards), so
            that reading moves through few shards at a time; None shuffles all samples.
        seed: What the order of training follows from.
        workers: Subprocesses that read, in each process.

    Raises:
        UserError: A folder holds no codes, or the two are not of one tokenizer.
    """

    def __init__(
        self,
        root: str,
        validation: str | None = None,
        batch_size: int | None = None,
        token_budget: int | None = None,
        shuffle_window: int | None = None,
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        super().__init__()
        check_workers(workers)
        check_seed("data.seed", seed)
        if shuffle_window is not None:
            check_at_least("shuffle_window", shuffle_window, 1)
        self._root, self._validation = root, validation
        self._batch_size, self._token_budget = batch_size, token_budget
        self._shuffle_window, self._seed, self._workers = shuffle_window, seed, workers

    @functools.cached_property
    def dataset(self) -> CodeDataset:
        """The training samples."""
        return CodeDataset(self._root)

    @functools.cached_property
    def held_out(self) -> CodeDataset | None:
        """The samples to validate on, if there are any.

        Raises:
            UserError: They are not of the training samples' tokenizer.
        """
        if self._validation is None:
            return None
        dataset = CodeDataset(self._validation)
        mine, other = self.dataset.manifest, dataset.manifest
        if (mine.settings.tokenizer, mine.spec) != (other.settings.tokenizer, other.spec):
            raise UserError(f"the codes of {self._root} and {self._validation} are not of one tokenizer and size")
        return dataset

    @property
    def spec(self) -> CodeSpec:
        """What the codes may be, with the grid of regions: what a prior is built from."""
        return self.dataset.manifest.spec

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the labels, or None where they have none."""
        return self.dataset.manifest.classes

    def train_dataloader(self) -> CodeLoader:
        """Shuffled batches of this process."""
        return self._loader(self.dataset, shuffle=True)

    def val_dataloader(self) -> CodeLoader | list:
        """Batches of this process in the order of the input."""
        return [] if self.held_out is None else self._loader(self.held_out, shuffle=False)

    def _loader(self, dataset: CodeDataset, shuffle: bool) -> CodeLoader:
        rank, processes = world()
        return CodeLoader(
            dataset,
            batch_size=self._batch_size,
            token_budget=self._token_budget,
            shuffle=shuffle,
            shuffle_window=self._shuffle_window,
            seed=self._seed,
            rank=rank,
            world_size=processes,
            workers=self._workers,
        )
