"""The simplest model of codes: how often each one occurs, whatever stands before it. What a prior must beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from vltok.sequences.source import CodeSequences

_CHUNK = 256


def unigram_loss(training: CodeSequences, held_out: CodeSequences, most: int = 20_000) -> float:
    """The cross-entropy of held-out codes under the frequencies of training codes, in nats a code.

    Codes that training lacks count as if each code had occurred once more.

    Args:
        training: The codes that are counted.
        held_out: The codes that are measured, of the same tokenizer.
        most: At most so many sequences of each are read, drawn at random but always the same.
    """
    seen, unseen = _uses(training, most), _uses(held_out, most)
    frequencies = (seen + 1) / (seen + 1).sum()
    return float(-(unseen * np.log(frequencies)).sum() / unseen.sum())


def _uses(sequences: CodeSequences, most: int) -> Int64[np.ndarray, " v"]:
    chosen = np.sort(np.random.default_rng(0).permutation(len(sequences))[:most])
    uses = np.zeros(sequences.facts.spec.codebook_size, dtype=np.int64)
    for start in range(0, len(chosen), _CHUNK):
        uses += np.bincount(sequences[chosen[start : start + _CHUNK]].ids.numpy(), minlength=len(uses))
    return uses
