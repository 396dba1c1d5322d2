"""What a source of codes offers to the rest of vltok, whoever wrote them and wherever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Int, Int64
from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError


@dataclass(frozen=True)
class SequenceFacts:
    """What is known of code sequences without reading them.

    Attributes:
        place: Where they are from, as messages name it: a folder, if they lie in one.
        spec: What the codes may be, with the grid of regions where they lie on one: what a prior is built from.
        tokenizer: The fingerprint of the tokenizer that made them (`vltok.io.bundles.fingerprint`).
        tokenizer_places: Where that one's bundle may be: paths, relative ones from `place`, or names on the Hub.
        labelled: Whether every sequence has a label.
        classes: The names of the labels, or None where they have none.
        described: Whether sequences have texts, empty ones where nothing describes their pictures.
    """

    place: str
    spec: CodeSpec
    tokenizer: str
    tokenizer_places: tuple[str, ...] = ()
    labelled: bool = False
    classes: tuple[str, ...] | None = None
    described: bool = False


class CodeSequences(Dataset, ABC):
    """Code sequences that can be read in any order.

    Attributes:
        facts: What is known of them.
        lengths: The code length of each.
        shard_starts: The first sequence of each part that is best read together, with the end of the last; `[0, n]`
            for one.
    """

    facts: SequenceFacts
    lengths: Int64[np.ndarray, " n"]
    shard_starts: Int64[np.ndarray, " starts"]

    @abstractmethod
    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> Codes:
        """The codes of some of them, in the order asked for, on the CPU.

        Raises:
            UserError: They cannot be read.
        """

    def __len__(self) -> int:
        return len(self.lengths)


@final
class SequencesInMemory(CodeSequences):
    """Code sequences that are held in memory.

    Args:
        codes: The sequences, on the CPU.
        facts: What is known of them.

    Raises:
        UserError: They are not what the facts say.
    """

    def __init__(self, codes: Codes, facts: SequenceFacts) -> None:
        codes.validate(facts.spec)
        if facts.labelled and codes.labels is None:
            raise UserError(f"{facts.place} is said to have labels, but its codes have none")
        if facts.described and codes.texts is None:
            raise UserError(f"{facts.place} is said to have texts, but its codes have none")
        labels, texts = codes.labels if facts.labelled else None, codes.texts if facts.described else None
        self._codes = replace(codes, labels=labels, texts=texts)
        self.facts = facts
        self.lengths = codes.lengths.numpy().astype(np.int64)
        self.shard_starts = np.array([0, len(self)])
        self._starts = np.cumsum(self.lengths) - self.lengths

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> Codes:
        # indexing `Codes` would count through all of them for each batch
        lengths = self.lengths[indices]
        offsets = np.cumsum(lengths) - lengths
        places = np.repeat(self._starts[indices] - offsets, lengths) + np.arange(lengths.sum())
        codes, chosen = self._codes, torch.from_numpy(indices)
        return Codes(
            codes.ids[torch.from_numpy(places)].long(),
            torch.from_numpy(lengths),
            None if codes.grains is None else codes.grains[chosen].long(),
            None if codes.labels is None else codes.labels[chosen],
            None if codes.texts is None else tuple(codes.texts[index] for index in indices),
        )


class CodeSource(LightningDataModule, ABC):
    """A source of code sequences to train a prior on, and of held-out ones that training never sees.

    `vltok.sequences.batches.CodeLoader` makes batches of `CodeSequences` for one of several processes.
    """

    @property
    @abstractmethod
    def training(self) -> CodeSequences:
        """The sequences to train on.

        Raises:
            UserError: They cannot be read.
        """

    @property
    @abstractmethod
    def held_out(self) -> CodeSequences | None:
        """The sequences to validate on, of the same tokenizer and spec, or None where there are none.

        Raises:
            UserError: They cannot be read, or are of another tokenizer or spec.
        """

    @abstractmethod
    def train_dataloader(self) -> Iterable[Codes]:
        """Shuffled batches of this process, with labels and texts where the sequences have them."""

    @abstractmethod
    def val_dataloader(self) -> Iterable[Codes]:
        """Batches of this process's held-out sequences, the same each time; empty where there are none."""
