"""The simplest model of codes: how often each one occurs, whatever stands before it. What a prior must beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from vltok.code_maps import entries
from vltok.loading.plans import in_batches
from vltok.sequences.source import CodeSequences

_CHUNK = 256


def unigram_loss(training: CodeSequences, held_out: CodeSequences, most: int = 20_000) -> float:
    """The cross-entropy of held-out codes under the frequencies of training codes, in nats a code.

    Where codes have several ids, each codebook's are counted by themselves, and a code costs what its ids cost
    together. Ids that training lacks count as if each id had occurred once more.

    Args:
        training: The codes that are counted.
        held_out: The codes that are measured, of the same tokenizer.
        most: At most so many sequences of each are read, drawn at random but always the same.
    """
    seen, unseen = _uses(training, most), _uses(held_out, most)
    frequencies = (seen + 1) / (seen + 1).sum(axis=1, keepdims=True)
    return float(-(unseen * np.log(frequencies)).sum() / unseen[0].sum())


def _uses(sequences: CodeSequences, most: int) -> Int64[np.ndarray, "q v"]:
    chosen = np.sort(np.random.default_rng(0).permutation(len(sequences))[:most])
    spec = sequences.facts.spec
    uses = np.zeros(spec.entries, dtype=np.int64)
    for chunk in in_batches(chosen, sequences.grid_numbers(), _chunks):
        uses += np.bincount(entries(sequences[chunk].ids, spec).flatten().numpy(), minlength=len(uses))
    return uses.reshape(spec.codebooks, -1)


def _chunks(grid: int, sequences: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " edges"]:
    return np.append(np.arange(0, len(sequences), _CHUNK), len(sequences))
