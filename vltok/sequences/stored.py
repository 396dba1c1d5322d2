"""The code sequences of a folder that `vltok tokenize` wrote."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int, Int64

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.paths import read_path
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.shards import CodeSample, by_grid, codes_of, parse_tar_sample
from vltok.sequences.source import CodeSequences, SequenceFacts, SequencesInMemory, grids_of


def stored_sequences(root: str | Path) -> CodeSequences:
    """The sequences of a folder: of tar shards read as they are asked for, of Parquet shards all in memory.

    Raises:
        UserError: The folder holds no whole export.
    """
    folder = read_path(root)
    manifest = CodeManifest.read(folder)
    manifest.check_shards(folder)
    return IndexedSequences(folder, manifest) if manifest.indexed else _in_memory(folder, manifest)


@final
class IndexedSequences(CodeSequences):
    """Sequences of tar shards, each read when it is asked for.

    Args:
        folder: Where the shards are.
        manifest: What they hold.

    Raises:
        UserError: A shard or the index is not the one that was written.
    """

    def __init__(self, folder: Path, manifest: CodeManifest) -> None:
        with ThreadPoolExecutor() as readers:  # a minute at the start is less than a training on damaged codes
            list(readers.map(functools.partial(manifest.check_content, folder), manifest.shards))
        self._folder, self._manifest = folder, manifest
        index = manifest.read_index(folder)
        self._places, self.lengths = index[:, :2], index[:, 2]
        self.shard_starts = np.cumsum([0, *(shard.samples for shard in manifest.shards)])
        self.facts = _facts(folder, manifest)
        if manifest.spec.gridded and manifest.spec.regions is None:
            # exports of before do not tell
            self.grids = index[:, 3:] if index.shape[1] > 3 else _read_grids(folder, manifest)
            self.facts = replace(self.facts, grids=grids_of(self.grids))

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> Codes:
        samples: list[Any] = [None] * len(indices)
        shards = np.searchsorted(self.shard_starts, indices, side="right") - 1
        for shard in np.unique(shards):
            path = self._folder / self._manifest.shards[shard].name
            try:
                with path.open("rb", buffering=0) as file:
                    for place in np.flatnonzero(shards == shard):
                        start, size = self._places[indices[place]]
                        file.seek(start)
                        samples[place] = parse_tar_sample(file.read(size))
            except OSError as error:
                raise UserError(f"{path} cannot be read any more: {error.strerror}") from error
        manifest = self._manifest
        return _codes(samples, manifest)


def _codes(samples: Sequence[CodeSample], manifest: CodeManifest) -> Codes:
    """Samples of an export with all that it says that they have."""
    codes = codes_of(samples, manifest.labelled, manifest.described, manifest.embedding_size is not None)
    if manifest.embedding_size is not None:
        codes.require_embeddings(manifest.embedding_size)
    return codes.validate(manifest.spec)


def _read_grids(folder: Path, manifest: CodeManifest) -> Int64[np.ndarray, "n 2"]:
    """The grid of each sample, for which all of them are read."""
    samples = (sample for shard in manifest.shards for sample in manifest.read_samples(folder, shard))
    return np.array([sample.grains.shape for sample in samples if sample.grains is not None], dtype=np.int64)


def _in_memory(folder: Path, manifest: CodeManifest) -> SequencesInMemory:
    """Sequences of shards in which none can be looked up by itself; those of a shard are sorted by their grids."""
    small = torch.int16 if manifest.spec.codebook_size <= torch.iinfo(torch.int16).max else torch.int32
    parts = []
    for shard in manifest.shards:
        for samples in by_grid(manifest.read_samples(folder, shard)):
            codes = _codes(samples, manifest)
            grains = None if codes.grains is None else codes.grains.to(torch.int8)
            parts.append(replace(codes, ids=codes.ids.to(small), grains=grains))
    return SequencesInMemory(parts, _facts(folder, manifest))


def _facts(folder: Path, manifest: CodeManifest) -> SequenceFacts:
    return SequenceFacts(
        place=str(folder),
        spec=manifest.spec,
        tokenizer=manifest.settings.tokenizer,
        tokenizer_places=manifest.tokenizer_places,
        labelled=manifest.labelled,
        classes=manifest.classes,
        described=manifest.described,
        embedding_size=manifest.embedding_size,
    )
