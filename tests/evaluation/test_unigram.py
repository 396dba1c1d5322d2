import math
from pathlib import Path

import numpy as np
import pytest

from vltok.codes import CodeSpec
from vltok.evaluation.unigram import unigram_loss
from vltok.sequences.stored import stored_sequences

from ..sequences.code_exports import export_codes, random_codes


def test_it_is_the_cross_entropy_of_the_frequencies(tmp_path: Path) -> None:
    seen, unseen = random_codes(12, seed=0), random_codes(7, seed=1)
    export_codes(tmp_path / "seen", seen)
    export_codes(tmp_path / "unseen", unseen)
    found = unigram_loss(stored_sequences(tmp_path / "seen"), stored_sequences(tmp_path / "unseen"))
    counts = np.bincount(seen.ids.numpy(), minlength=300) + 1
    expected = np.mean([-math.log(counts[code] / counts.sum()) for code in unseen.ids.tolist()])
    assert found == pytest.approx(expected)


def test_the_ids_of_a_code_are_counted_apart(tmp_path: Path) -> None:
    spec = CodeSpec(2**12, (8,), codebooks=2)
    seen, unseen = random_codes(9, spec, seed=0), random_codes(4, spec, seed=1)
    for name, codes in (("seen", seen), ("unseen", unseen)):
        export_codes(tmp_path / name, codes, spec=spec)
    found = unigram_loss(stored_sequences(tmp_path / "seen"), stored_sequences(tmp_path / "unseen"))
    expected = 0.0
    for depth in range(2):
        counts = np.bincount(seen.ids[:, depth].numpy(), minlength=2**12) + 1
        expected -= np.log(counts / counts.sum())[unseen.ids[:, depth].numpy()].mean()
    assert found == pytest.approx(expected)


def test_some_sequences_stand_for_all(tmp_path: Path) -> None:
    export_codes(tmp_path / "codes", random_codes(12))
    sequences = stored_sequences(tmp_path / "codes")
    assert unigram_loss(sequences, sequences, most=5) == unigram_loss(sequences, sequences, most=5)
    assert unigram_loss(sequences, sequences, most=5) != unigram_loss(sequences, sequences)
