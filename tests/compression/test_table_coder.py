"""Codes under tables, there and back."""

import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.codes import Codes, CodeSpec
from vltok.compression.contexts import CLASSES, Contexts
from vltok.compression.file_format import pack, unpack
from vltok.compression.frequencies import TOTAL
from vltok.compression.header import TABLES, Header
from vltok.compression.neighbours import neighbours
from vltok.compression.table_coder import TableCoder, measured_bits
from vltok.compression.tables import CodeTables
from vltok.measures.codes import fixed_rate_bits
from vltok.testing.outcomes import random_codes

SPECS = [
    CodeSpec(1, (4,)),
    CodeSpec(300, (4,)),
    CodeSpec(17, (8, 4)),
    CodeSpec(512, (16, 8, 4)),
    CodeSpec(9, max_length=12),
    CodeSpec(17, (8, 4), codebooks=2),
]


def grids(codes: Codes) -> list[tuple[int, int] | None]:
    return [None if codes.grains is None else tuple(codes.grains.shape[1:])] * len(codes)


@st.composite
def batches(draw: st.DrawFn) -> tuple[CodeSpec, Codes]:
    """Codes of a spec, with regions of one granularity now and then."""
    spec = draw(st.sampled_from(SPECS))
    if not spec.gridded:
        return spec, random_codes(spec, draw(st.integers(1, 4)), draw(st.integers(0, 99)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    grains = torch.tensor(
        draw(
            st.lists(st.integers(0, spec.granularities - 1), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
        )
    ).view(shape)
    lengths = torch.tensor(spec.codes_per_region)[grains].sum((1, 2))
    ids = torch.tensor(draw(st.lists(st.integers(0, spec.codebook_size - 1), min_size=9, max_size=9)))
    count = int(lengths.sum()) * spec.codebooks
    return spec, Codes(ids.repeat(count)[:count].view(-1, *spec.id_shape), lengths, grains)


def beside(codes: Codes, spec: CodeSpec) -> CodeTables:
    """Tables by which codes follow what lies beside them, whether that helps or not."""
    tables = CodeTables.measure([codes], spec)
    if not spec.gridded or spec.codebooks > 1:
        return tables
    known = codes.to_code_map(spec).numpy(), codes.grains.numpy()
    seen = [neighbours(*known, granularity, spec) for granularity in range(spec.granularities)]
    return replace(tables, contexts=Contexts.measure(seen, spec))


@functools.cache
def coder_of(spec: CodeSpec, by: str) -> TableCoder:
    """A coder that has seen a few codes."""
    if by == "equal":
        return TableCoder(None, spec)
    seen = random_codes(replace(spec, regions=(2, 3)) if spec.gridded else spec, 1)
    return TableCoder(CodeTables.measure([seen], spec) if by == "tables" else beside(seen, spec), spec)


@settings(max_examples=100, deadline=None)
@given(batches(), st.sampled_from(["equal", "tables", "beside"]))
def test_codes_come_back_bit_for_bit(batch: tuple[CodeSpec, Codes], by: str) -> None:
    spec, codes = batch
    coder, tiles = coder_of(spec, by), list(codes)
    found = coder.decode(coder.encode(tiles), grids(codes))
    assert all(tile.known is None for tile in found)
    assert Codes.concatenate([tile.codes for tile in found]).equal(codes)


@pytest.mark.parametrize("measure", [beside, lambda codes, spec: CodeTables.measure([codes], spec)])
@pytest.mark.parametrize("spec", SPECS[2:4])
def test_the_first_sections_hold_the_coarsest_granularities(spec: CodeSpec, measure) -> None:
    codes = random_codes(CodeSpec(spec.codebook_size, spec.factors, (6, 7)), 1, seed=3)
    coder = TableCoder(measure(codes, spec), spec)
    sections = coder.encode([codes])
    for count in range(1, spec.granularities):
        (tile,) = coder.decode(sections[:count], grids(codes))
        known = codes.grains[0] < count
        assert torch.equal(tile.known, known) and not known.all()
        tile.codes.validate(spec)
        side = spec.sides[-1]
        there = known.repeat_interleave(side, 0).repeat_interleave(side, 1)
        assert torch.equal(tile.codes.to_code_map(spec)[0][there], codes.to_code_map(spec)[0][there])


#: Files of each version, as they were written first: this and every later vltok must read them.
FILE_1 = bytes.fromhex("564c540107a1b2c3ee57fe10170008636f6465733d3135030be05bbbe744b95f40db0434252330c446eb02793c")
FILE_2 = bytes.fromhex("56823da1b2f6a710170215ff040b420f852d67d4d474010d0948cbf66712c074a0")


def test_files_that_were_written_long_ago_are_read() -> None:
    spec = CodeSpec(300, (8, 4))
    codes = Codes(7 * torch.arange(15), torch.tensor([15]), torch.tensor([[[0, 1, 0], [1, 1, 0]]]))
    tables = CodeTables.measure([codes], spec)
    classes = np.tile(np.arange(300, dtype=np.int32) // 7 % CLASSES, (2, 1))
    frequencies = np.full(Contexts.shapes(spec)["contexts"], TOTAL // CLASSES, dtype=np.int32)
    for measured, data, name in (
        (tables, FILE_1, "a1b2c3"),
        (replace(tables, contexts=Contexts(classes, frequencies)), FILE_2, "a1b2"),
    ):
        coder = TableCoder(measured, spec)
        file = unpack(data)
        model = bytes.fromhex(coder.name)[: len(name) // 2]
        assert file.header == Header(bytes.fromhex(name), TABLES, model, 16, 23, rate="codes=15")
        (tile,) = coder.decode(file.sections, [(2, 3)])
        assert tile.codes.equal(codes)
    assert pack(file.header, coder.encode([codes])) == FILE_2


PROGRAM = """
import sys, torch
from vltok.codes import Codes, CodeSpec
from vltok.compression.table_coder import TableCoder
from vltok.compression.tables import CodeTables
torch.set_num_threads(3)
codes = Codes.load(sys.argv[1])
spec = CodeSpec(512, (16, 8, 4))
coder = TableCoder(CodeTables.measure([codes], spec), spec)
sections = [bytes.fromhex(line) for line in sys.stdin.read().split()]
assert coder.encode(list(codes)) == sections
assert Codes.concatenate([tile.codes for tile in coder.decode(sections, [(3, 5)] * len(codes))]).equal(codes)
"""


def test_another_process_with_other_threads_reads_the_same(tmp_path: Path) -> None:
    spec = CodeSpec(512, (16, 8, 4), (3, 5))
    codes = random_codes(spec, 20)
    codes.save(tmp_path / "codes.safetensors")
    spec = CodeSpec(512, (16, 8, 4))
    sections = TableCoder(CodeTables.measure([codes], spec), spec).encode(list(codes))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "codes.safetensors")],
        input="\n".join(section.hex() for section in sections),
        env={**os.environ, "OMP_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def uneven(spec: CodeSpec, images: int, seed: int) -> Codes:
    """Codes of which few are frequent, and others at each granularity; neighbours have the same granularity."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(2, (images, 2, 2), generator=generator)
    grains = half.repeat_interleave(4, 1).repeat_interleave(4, 2)
    lengths = torch.tensor(spec.codes_per_region)[grains].sum((1, 2))
    codes = Codes(torch.zeros(int(lengths.sum()), dtype=torch.long), lengths, grains)
    skewed = (torch.rand(codes.ids.shape, generator=generator) ** 4 * spec.codebook_size).long()
    at = codes.granularities(spec)
    return Codes(torch.where(at == 0, skewed, spec.codebook_size - 1 - skewed), lengths, grains)


@pytest.mark.parametrize("spec", SPECS)
def test_codes_unlike_the_tables_take_no_more_than_at_equal_frequencies(spec: CodeSpec) -> None:
    """But for the choice of 4 bits before the codes of each granularity of a tile."""
    seen, others = random_codes(spec, 3, seed=1), random_codes(spec, 1, seed=2)
    skewed = Codes(seen.ids // 9, seen.lengths, seen.grains)
    equal = CodeTables.measure([], spec)
    plain = 8 * sum(map(len, TableCoder(None, spec).encode([others])))
    for tables, choice in ((CodeTables.measure([skewed], spec), 2), (beside(skewed, spec), 4)):
        within = replace(tables, grains=equal.grains, lengths=equal.lengths)
        size = 8 * sum(map(len, TableCoder(within, spec).encode([others])))
        assert size <= plain + (choice + 8) * max(spec.granularities, 1)


def test_whole_files_are_smaller_than_codes_of_a_fixed_rate() -> None:
    spec = CodeSpec(256, (8, 4))
    seen, unseen = uneven(spec, 100, 0), uneven(spec, 40, 1)
    estimate = torch.stack([fixed_rate_bits(length, 64, spec) for length in unseen.lengths.double()])
    bits = measured_bits(unseen, coder=TableCoder(CodeTables.measure([seen[:50], seen[50:]], spec), spec))
    assert bits.shape == (40,) and bits.mean() < 0.95 * estimate.mean()
    one_row = measured_bits(unseen, coder=TableCoder(CodeTables.measure([], spec), spec))
    assert one_row.mean() > estimate.mean(), "equal frequencies are the estimate, and a header"
    assert one_row.mean() < estimate.mean() + 8 * 17
