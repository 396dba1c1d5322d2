import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.files import sha256_of
from vltok.sequences.manifest import INDEX, CodeManifest
from vltok.sequences.shards import codes_of
from vltok.sequences.source import CodeSequences
from vltok.sequences.stored import stored_sequences

from .code_exports import SPEC, export_codes, export_samples, mixed_samples, random_codes


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
    codes = dataclasses.replace(codes, embeddings=torch.randn(12, 5))
    for form in ("parquet", "webdataset"):
        export_codes(tmp_path / form, codes, spec=spec, format=form)
    in_memory, indexed = (stored_sequences(tmp_path / form) for form in ("parquet", "webdataset"))
    assert in_memory.lengths.tolist() == indexed.lengths.tolist()
    assert indexed.facts.described and indexed.facts.embedding_size == 5
    assert dataclasses.replace(in_memory.facts, place="") == dataclasses.replace(indexed.facts, place="")
    chosen = np.array([11, 0, 7, 7])
    assert in_memory[chosen].equal(indexed[chosen]) and in_memory[chosen].equal(codes[chosen])


GRIDS = [(2, 3), (3, 2), (2, 2)]


@pytest.mark.parametrize("kind", ["webdataset", "parquet", "of before"])
def test_sequences_of_several_grids_are_read_grid_by_grid(kind: str, tmp_path: Path) -> None:
    samples = mixed_samples(14, GRIDS)
    manifest = export_samples(tmp_path, samples, format="parquet" if kind == "parquet" else "webdataset")
    assert manifest.spec == SPEC and manifest.spec.regions is None
    if kind == "of before":
        index = np.load(tmp_path / INDEX)
        assert index[:, 3:].tolist() == [list(sample.grains.shape) for sample in samples]
        np.save(tmp_path / INDEX, np.ascontiguousarray(index[:, :3]))
        dataclasses.replace(manifest, index_sha256=sha256_of(tmp_path / INDEX)).write(tmp_path)
    sequences = stored_sequences(tmp_path)
    assert sequences.facts.spec == SPEC and sequences.facts.grids == ((2, 2), (2, 3), (3, 2))
    seen: list[int] = []
    for number, grid in enumerate(sequences.facts.grids):
        chosen = np.flatnonzero(sequences.grid_numbers() == number)[::-1].copy()
        codes = sequences[chosen]
        assert codes.equal(codes_of([samples[label] for label in codes.labels], labelled=True))
        assert codes.grains.shape[1:] == grid and codes.lengths.tolist() == sequences.lengths[chosen].tolist()
        seen += codes.labels.tolist()
    assert sorted(seen) == list(range(14))
    with pytest.raises(UserError, match=r"of several (sizes|grids)"):
        sequences[np.arange(14)]


def test_an_export_of_one_size_says_its_grid_once(tmp_path: Path) -> None:
    assert export_codes(tmp_path, random_codes(7)).spec.regions == (2, 3)
    assert np.load(tmp_path / INDEX).shape == (7, 3)
    sequences = stored_sequences(tmp_path)
    assert sequences.grids is None and sequences.facts.grids == ((2, 3),)
    assert CodeManifest.read(tmp_path).read_index(tmp_path).shape == (7, 3)
