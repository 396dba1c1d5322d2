"""How often codes occur, measured and stored."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.cli.exports import write_bundle
from vltok.codes import Codes, CodeSpec
from vltok.compression.contexts import CLASSES, Contexts
from vltok.compression.frequencies import TOTAL
from vltok.compression.tables import CodeTables, neighbourhoods
from vltok.errors import UserError
from vltok.io.bundles import fingerprint, load_tokenizer
from vltok.testing.outcomes import random_codes


def test_frequencies_are_those_of_the_codes() -> None:
    spec = CodeSpec(3, (8, 4))
    # a coarse region with code 2, a fine one with codes 0 0 0 1
    codes = Codes(torch.tensor([2, 0, 0, 0, 1]), torch.tensor([5]), torch.tensor([[[0, 1]]]))
    tables = CodeTables.measure([codes, codes], spec)
    shares = tables.ids / TOTAL
    assert shares[0] == pytest.approx(np.array([0.5, 0.5, 2.5]) / 3.5, abs=1e-6)
    assert shares[1] == pytest.approx(np.array([6.5, 2.5, 0.5]) / 9.5, abs=1e-6)
    # beyond the edge counts as a granularity of its own: 2
    first, second = 2 * 9 + 2 * 3 + 2, 0 * 9 + 2 * 3 + 2
    assert neighbourhoods(codes.grains.numpy(), 2).tolist() == [[[first, second]]]
    assert tables.grains[first] / TOTAL == pytest.approx(np.array([2.5, 0.5]) / 3, abs=1e-6)
    assert tables.grains[second] / TOTAL == pytest.approx(np.array([0.5, 2.5]) / 3, abs=1e-6)


def test_without_a_grid_lengths_are_counted() -> None:
    spec = CodeSpec(4, max_length=3)
    codes = Codes(torch.tensor([1, 1, 3]), torch.tensor([2, 1]))
    tables = CodeTables.measure([codes], spec)
    assert tables.grains is None
    assert tables.lengths / TOTAL == pytest.approx(np.array([0.5, 1.5, 1.5, 0.5]) / 4, abs=1e-6)
    assert tables.ids / TOTAL == pytest.approx(np.array([[0.5, 2.5, 0.5, 1.5]]) / 5, abs=1e-6)


def test_whatever_is_measured_everything_can_be_coded() -> None:
    for spec in (CodeSpec(1, (4,)), CodeSpec(70_000, (8, 4)), CodeSpec(5, max_length=300)):
        tables = CodeTables.measure([], spec)
        for values in (tables.ids, tables.grains, tables.lengths):
            assert values is None or (values.min() >= 1 and (values.sum(-1, dtype=np.int64) == TOTAL).all())


def test_codes_of_another_spec_are_refused() -> None:
    with pytest.raises(UserError, match="outside a codebook of 5"):
        CodeTables.measure([random_codes(CodeSpec(50, (8, 4)), 3)], CodeSpec(5, (8, 4)))
    with pytest.raises(UserError, match="at most"):
        CodeTables.measure([], CodeSpec(2**30, (8, 4)))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_keeps_all_that_were_measured_and_its_fingerprint(bundle: Path) -> None:
    before, spec = fingerprint(bundle), load_tokenizer(bundle).spec
    assert CodeTables.stored(bundle, spec) == []
    first, second = (CodeTables.measure([random_codes(spec, 9, seed)], spec) for seed in (0, 1))
    for tables in (first, second, first):
        tables.save(bundle)
    assert [tables.name for tables in CodeTables.stored(bundle, spec)] == [second.name, first.name]
    found = CodeTables.stored(bundle, spec)[-1]
    assert np.array_equal(found.ids, first.ids) and np.array_equal(found.grains, first.grains)
    assert fingerprint(bundle) == before
    assert load_tokenizer(bundle).spec == spec


def test_contexts_are_kept_beside_tables_of_before(bundle: Path) -> None:
    spec = load_tokenizer(bundle).spec
    before, now = (CodeTables.measure([random_codes(spec, 9, seed)], spec) for seed in (0, 1))
    before.save(bundle)
    path = bundle / "code_tables.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file(load_file(path), path, {**about, "version": "1"})
    shapes = Contexts.shapes(spec)
    frequencies = np.full(shapes["contexts"], TOTAL // CLASSES, dtype=np.int32)
    now = replace(now, contexts=Contexts(np.zeros(shapes["classes"], dtype=np.int32), frequencies))
    now.save(bundle)
    found = CodeTables.stored(bundle, spec)
    assert [tables.name for tables in found] == [before.name, now.name] and found[0].contexts is None
    assert np.array_equal(found[1].contexts.frequencies, frequencies)
    save_file(load_file(path), path, {**about, "version": "3"})
    with pytest.raises(UserError, match="has version 3, this vltok reads 2: install a later one"):
        CodeTables.stored(bundle, spec)
    now.contexts.classes[0, 0] = CLASSES
    path.unlink()
    now.save(bundle)
    with pytest.raises(UserError, match="is damaged"):
        CodeTables.stored(bundle, spec)


def test_two_that_store_tables_at_once_lose_none(bundle: Path) -> None:
    spec = load_tokenizer(bundle).spec
    every = [CodeTables.measure([random_codes(spec, 2, seed)], spec) for seed in range(12)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda tables: tables.save(bundle), every))
    assert {tables.name for tables in CodeTables.stored(bundle, spec)} == {tables.name for tables in every}


def test_tables_of_another_bundle_or_damaged_ones_are_told(bundle: Path, tmp_path: Path) -> None:
    spec = load_tokenizer(bundle).spec
    CodeTables.measure([random_codes(spec, 9)], spec).save(bundle)
    path = bundle / "code_tables.safetensors"
    write_bundle(tmp_path / "other", seed=1)
    (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="of another tokenizer"):
        CodeTables.stored(tmp_path / "other", spec)
    whole = path.read_bytes()
    for damaged in (whole[:-5], b"", whole[:-4] + b"\xff" * 4, whole[:-4] + bytes(4)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged or was not written by vltok"):
            CodeTables.stored(bundle, spec)
