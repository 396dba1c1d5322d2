"""Codes under a prior, there and back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny_priors import tiny_prior
from vltok.codes import Codes, CodeSpec
from vltok.compression.prior_coder import PriorCoder
from vltok.compression.table_coder import TableCoder
from vltok.compression.tables import CodeTables
from vltok.errors import UserError
from vltok.interfaces import Prior
from vltok.nn.llama import Llama
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.global_local import GlobalLocal
from vltok.priors.raster_scan import RasterScan
from vltok.priors.sequence import SequencePrior
from vltok.testing.outcomes import nats, random_codes

KINDS: dict[str, tuple[type[Prior], tuple[int, ...]]] = {
    "dq-transformer": (DQTransformer, (4, 2)),
    "dq-transformer of three": (DQTransformer, (4, 2, 1)),
    "dq-transformer of one": (DQTransformer, (2,)),
    "sequence": (SequencePrior, ()),
    "sequence on a grid": (SequencePrior, (2,)),
    "raster-scan": (RasterScan, (4, 2, 1)),
    "global-local": (GlobalLocal, (4, 2, 1)),
}


def prior_of(kind: str) -> Prior:
    torch.manual_seed(0)
    prior = tiny_prior(KINDS[kind][0], factors=KINDS[kind][1]).eval()
    with torch.no_grad():  # fresh weights say nothing
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return prior


@pytest.mark.parametrize("kind", KINDS)
def test_codes_come_back_bit_for_bit_at_the_cost_that_the_loss_says(kind: str) -> None:
    prior = prior_of(kind)
    coder = PriorCoder(prior, "00")
    tiles = list(random_codes(prior.spec, 5, seed=1))
    sections = coder.encode(tiles)
    found = coder.decode(sections, [prior.spec.regions] * 5)
    assert all(tile.known is None and tile.codes.equal(codes) for tile, codes in zip(found, tiles, strict=True))
    assert coder.check([tile.codes for tile in found]) == coder.check(tiles) != coder.check(tiles[:4])
    with torch.no_grad():
        bits = sum(float(nats(prior.loss(codes), codes)) for codes in tiles) / torch.tensor(2.0).log()
    size = 8 * sum(map(len, sections))
    # positions that follow from others cost nothing, though the prior may be in doubt
    assert size <= bits + 8 * len(sections) + 1
    if not isinstance(prior, DQTransformer):
        assert size >= bits - 8


@pytest.mark.parametrize("kind", ["dq-transformer", "dq-transformer of three"])
def test_the_first_sections_hold_the_coarsest_granularities(kind: str) -> None:
    prior = prior_of(kind)
    coder, spec = PriorCoder(prior, "00"), prior.spec
    codes = random_codes(spec, 3, seed=2)
    sections = coder.encode(list(codes))
    assert len(sections) == spec.granularities
    for count in range(1, spec.granularities):
        for tile, image in zip(coder.decode(sections[:count], [spec.regions] * 3), codes, strict=True):
            known = image.grains[0] < count
            assert torch.equal(tile.known, known)
            tile.codes.validate(spec)
            there = known.repeat_interleave(spec.sides[-1], 0).repeat_interleave(spec.sides[-1], 1)
            assert torch.equal(tile.codes.to_code_map(spec)[0][there], image.to_code_map(spec)[0][there])


def test_images_of_one_granularity_come_back() -> None:
    prior = prior_of("dq-transformer of three")
    coder, spec = PriorCoder(prior, "00"), prior.spec
    for granularity, costs in enumerate(spec.codes_per_region):
        grains = torch.full((1, *spec.grid), granularity)
        count = costs * grains.numel()
        codes = Codes(torch.arange(count) % spec.codebook_size, torch.tensor([count]), grains)
        (tile,) = coder.decode(coder.encode([codes]), [spec.regions])
        assert tile.codes.equal(codes) and tile.known is None


PROGRAM = """
import sys, torch
from tests.compression.test_prior_coder import prior_of
from vltok.codes import Codes
from vltok.compression.prior_coder import PriorCoder
torch.set_num_threads(3)
prior = prior_of("dq-transformer of three")
codes = Codes.load(sys.argv[1])
coder = PriorCoder(prior, "00")
sections = [bytes.fromhex(line) for line in sys.stdin.read().split()]
assert coder.encode(list(codes)) == sections
assert Codes.concatenate([tile.codes for tile in coder.decode(sections, [prior.spec.regions] * 4)]).equal(codes)
assert torch.get_num_threads() == 3
"""


def test_another_process_with_other_threads_computes_the_same(tmp_path: Path) -> None:
    prior = prior_of("dq-transformer of three")
    codes = random_codes(prior.spec, 4)
    codes.save(tmp_path / "codes.safetensors")
    sections = PriorCoder(prior, "00").encode(list(codes))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "codes.safetensors")],
        input="\n".join(section.hex() for section in sections),
        env={**os.environ, "OMP_NUM_THREADS": "3"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_what_a_prior_has_learned_makes_files_smaller_than_tables() -> None:
    # each code follows from the one before: tables see that of its neighbours' classes alone
    spec = CodeSpec(11, (2,), (3, 4))
    prior = tiny_prior(SequencePrior, 11, (2,), (3, 4), width=32)
    starts = torch.randint(11, (64, 1), generator=torch.Generator().manual_seed(0))
    ids = (starts + 3 * torch.arange(12)) % 11
    codes = Codes(ids.flatten(), torch.full((64,), 12), torch.zeros(64, 3, 4, dtype=torch.long))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        prior.loss(codes).total.backward()
        optimizer.step()
    tables = TableCoder(CodeTables.measure([codes], CodeSpec(11, (2,))), spec)
    sizes = [sum(map(len, coder.encode(list(codes[:20])))) for coder in (PriorCoder(prior, "00"), tables)]
    assert sizes[0] < 0.75 * sizes[1]


def test_a_transformer_of_another_kind_serves_too() -> None:
    torch.manual_seed(0)
    spec = CodeSpec(13, (2,), (2, 3))
    prior = SequencePrior(spec=spec, transformer=Llama(width=16, heads=2, layers=1)).eval()
    codes = random_codes(spec, 2)
    coder = PriorCoder(prior, "00")
    assert Codes.concatenate([tile.codes for tile in coder.decode(coder.encode(list(codes)), [(2, 3)] * 2)]).equal(
        codes
    )


def test_priors_that_cannot_code_are_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="knows 4 classes"):
        PriorCoder(tiny_prior(SequencePrior, factors=(2,), classes=4), "00")
    PriorCoder(tiny_prior(SequencePrior, factors=(2,), classes=4, label_dropout=0.1), "00")
    coder = PriorCoder(prior_of("sequence on a grid"), "00")
    with pytest.raises(UserError, match=r"\(9, 9\) regions"):
        coder.decode([b""], [(9, 9)])
    with pytest.raises(UserError, match="it is cut within the first codes that a prior models"):
        PriorCoder(prior_of("sequence"), "00").decode([], [None], b"cut")
