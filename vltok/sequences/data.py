"""Codes that `vltok tokenize` wrote, as a source for training."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import final

from vltok.errors import UserError, check_seed
from vltok.loading.checks import check_at_least, check_workers
from vltok.loading.classes import same_classes
from vltok.processes import world
from vltok.sequences.batches import CodeLoader
from vltok.sequences.source import CodeSequences, CodeSource
from vltok.sequences.stored import stored_sequences


@final
class CodeData(CodeSource):
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
    def training(self) -> CodeSequences:
        """The samples of the folder of training codes."""
        return stored_sequences(self._root)

    @functools.cached_property
    def held_out(self) -> CodeSequences | None:
        """The samples to validate on, if there are any.

        Raises:
            UserError: They are not of the training samples' tokenizer, or number the classes otherwise.
        """
        if self._validation is None:
            return None
        held_out = stored_sequences(self._validation)
        mine = self.training.facts
        if mine.spec.gridded and mine.spec.regions is None:  # held-out pictures of one size only happen to have it
            held_out.facts = replace(held_out.facts, spec=replace(held_out.facts.spec, regions=None))
        other = held_out.facts
        if (mine.tokenizer, mine.spec) != (other.tokenizer, other.spec):
            raise UserError(f"the codes of {self._root} and {self._validation} are not of one tokenizer and size")
        same_classes("data.validation", (self._root, mine.classes), (self._validation, other.classes))
        return held_out

    def train_dataloader(self) -> CodeLoader:
        """Shuffled batches of this process."""
        return self._loader(self.training, shuffle=True)

    def val_dataloader(self) -> CodeLoader | list:
        """Batches of this process in the order of the input."""
        return [] if self.held_out is None else self._loader(self.held_out, shuffle=False)

    def _loader(self, sequences: CodeSequences, shuffle: bool) -> CodeLoader:
        rank, processes = world()
        return CodeLoader(
            sequences,
            batch_size=self._batch_size,
            token_budget=self._token_budget,
            shuffle=shuffle,
            shuffle_window=self._shuffle_window,
            seed=self._seed,
            rank=rank,
            world_size=processes,
            workers=self._workers,
        )
