"""What a source of codes offers to the rest of vltok, whoever wrote them and wherever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Int, Int64
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError

#: Makes one number of a grid, so that grids sort by it.
_ROWS_FIRST = np.array([2**32, 1])


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
        grids: The grids of regions (h, w) that occur, ascending; the spec's, where it has one, and none where codes lie
            on no grid.
        embedding_size: How many numbers the embedding of each sequence has; None where they have none.
    """

    place: str
    spec: CodeSpec
    tokenizer: str
    tokenizer_places: tuple[str, ...] = ()
    labelled: bool = False
    classes: tuple[str, ...] | None = None
    described: bool = False
    grids: tuple[tuple[int, int], ...] = ()
    embedding_size: int | None = None

    def __post_init__(self) -> None:
        if not self.grids and self.spec.regions is not None:
            object.__setattr__(self, "grids", (self.spec.regions,))


class CodeSequences(Dataset, ABC):
    """Code sequences that can be read in any order.

    Attributes:
        facts: What is known of them.
        lengths: The code length of each.
        shard_starts: The first sequence of each part that is best read together, with the end of the last; `[0, n]`
            for one.
        grids: The grid of regions (h, w) of each, where they have several; else None.
    """

    facts: SequenceFacts
    lengths: Int64[np.ndarray, " n"]
    shard_starts: Int64[np.ndarray, " starts"]
    grids: Int64[np.ndarray, "n 2"] | None = None

    @abstractmethod
    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> Codes:
        """The codes of some of them, which have one grid, in the order asked for, on the CPU.

        Raises:
            UserError: They cannot be read.
        """

    def grid_numbers(self) -> Int64[np.ndarray, " n"]:
        """The place of each one's grid among those that occur, ascending; 0 where they have one or none."""
        if self.grids is None:
            return np.zeros(len(self), dtype=np.int64)
        return np.unique(self.grids @ _ROWS_FIRST, return_inverse=True)[1].astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)


@final
class SequencesInMemory(CodeSequences):
    """Code sequences that are held in memory.

    Args:
        codes: The sequences, on the CPU; those of several grids in several parts, of one grid each.
        facts: What is known of them; the grids are found.

    Raises:
        UserError: They are not what the facts say.
    """

    def __init__(self, codes: Codes | Sequence[Codes], facts: SequenceFacts) -> None:
        parts = [codes] if isinstance(codes, Codes) else list(codes)
        for part in parts:
            part.validate(facts.spec)
            if facts.labelled and part.labels is None:
                raise UserError(f"{facts.place} is said to have labels, but its codes have none")
            if facts.described and part.texts is None:
                raise UserError(f"{facts.place} is said to have texts, but its codes have none")
            if facts.embedding_size is not None and part.embeddings is None:
                raise UserError(f"{facts.place} is said to have embeddings, but its codes have none")
        # grain maps of any size lie end to end
        self._codes = Codes.concatenate(
            [
                Codes(
                    part.ids,
                    part.lengths,
                    labels=part.labels if facts.labelled else None,
                    texts=part.texts if facts.described else None,
                    embeddings=None if facts.embedding_size is None else part.embeddings,
                )
                for part in parts
            ]
        )
        self._grains = None
        shapes = np.zeros((len(self._codes), 2), dtype=np.int64)
        if facts.spec.gridded:
            maps = [part.require_grains() for part in parts]
            self._grains = torch.cat([grains.flatten() for grains in maps])
            shapes = np.repeat([grains.shape[1:] for grains in maps], [len(grains) for grains in maps], axis=0)
        self._shapes = shapes
        self.facts = replace(facts, grids=grids_of(shapes))
        self.grids = shapes if len(self.facts.grids) > 1 else None
        self.lengths = self._codes.lengths.numpy().astype(np.int64)
        self.shard_starts = np.array([0, len(self)])
        self._starts, self._cells = (np.cumsum(sizes) - sizes for sizes in (self.lengths, shapes.prod(axis=1)))

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> Codes:
        # indexing `Codes` would count through all of them for each batch
        lengths = self.lengths[indices]
        offsets = np.cumsum(lengths) - lengths
        places = np.repeat(self._starts[indices] - offsets, lengths) + np.arange(lengths.sum())
        codes, chosen = self._codes, torch.from_numpy(indices)
        return Codes(
            codes.ids[torch.from_numpy(places)].long(),
            torch.from_numpy(lengths),
            None if self._grains is None else self._maps(self._grains, indices),
            None if codes.labels is None else codes.labels[chosen],
            None if codes.texts is None else tuple(codes.texts[index] for index in indices),
            None if codes.embeddings is None else codes.embeddings[chosen],
        )

    def _maps(self, grains: Int[Tensor, " cells"], indices: Int[np.ndarray, " b"]) -> Int[Tensor, "b h w"]:
        """The grain maps of sequences of one grid."""
        shapes = self._shapes[indices]
        height, width = self._shapes[indices[0] if len(indices) else 0].tolist()
        if (shapes != (height, width)).any():
            raise UserError(f"codes of {self.facts.place} of several grids do not go into one batch")
        cells = self._cells[indices][:, None] + np.arange(height * width)
        return grains[torch.from_numpy(cells)].long().unflatten(1, (height, width))


def grids_of(shapes: Int64[np.ndarray, "n 2"]) -> tuple[tuple[int, int], ...]:
    """The grids that occur among those of sequences, ascending; one without regions is none."""
    return tuple(divmod(grid, _ROWS_FIRST[0].item()) for grid in np.unique(shapes @ _ROWS_FIRST).tolist() if grid)


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
        """Shuffled batches of this process, with labels, texts and embeddings where the sequences have them."""

    @abstractmethod
    def val_dataloader(self) -> Iterable[Codes]:
        """Batches of this process's held-out sequences, the same each time; empty where there are none."""
