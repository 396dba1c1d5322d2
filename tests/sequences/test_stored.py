import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.sequences.source import CodeSequences
from vltok.sequences.stored import stored_sequences

from .code_exports import export_codes, random_codes


def test_samples_are_read_in_the_order_asked_for(sequences: CodeSequences) -> None:
    codes = random_codes(97)
    chosen = torch.randperm(97)[:40]
    assert sequences[chosen.numpy()].equal(codes[chosen])


def test_damaged_shards_are_noticed(tmp_path: Path) -> None:
    export_codes(tmp_path, random_codes(12))
    sequences = stored_sequences(tmp_path)
    path = tmp_path / "codes-000000.tar"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match="damaged"):
        sequences[torch.arange(3).numpy()]
    path.unlink()
    with pytest.raises(UserError, match=r"codes-000000\.tar has 0 bytes"):
        stored_sequences(tmp_path)


@pytest.mark.parametrize(("codebook", "codebooks"), [(300, 2), (40_000, 1)])
def test_parquet_shards_hold_the_same_sequences(codebook: int, codebooks: int, tmp_path: Path) -> None:
    spec = CodeSpec(codebook, (8, 16), codebooks=codebooks)
    codes = dataclasses.replace(random_codes(12, spec), texts=("", "a cat\non a mat", *("ünï",) * 10))
    for form in ("parquet", "webdataset"):
        export_codes(tmp_path / form, codes, spec=spec, format=form)
    in_memory, indexed = (stored_sequences(tmp_path / form) for form in ("parquet", "webdataset"))
    assert in_memory.lengths.tolist() == indexed.lengths.tolist()
    assert indexed.facts.described
    assert dataclasses.replace(in_memory.facts, place="") == dataclasses.replace(indexed.facts, place="")
    chosen = np.array([11, 0, 7, 7])
    assert in_memory[chosen].equal(indexed[chosen]) and in_memory[chosen].equal(codes[chosen])
