"""The prior that tells how hard codes are to predict."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.evaluation.grey import Grey
from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.evaluation import probe
from vltok.evaluation.measurement import ProcessShare
from vltok.evaluation.probe import PICTURES, Probe, training_places
from vltok.pictures.photos import Photos

GRID = CodeSpec(32, (8, 4))
ROW = CodeSpec(8, max_length=6)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrower one, and fewer steps, are enough for pictures of four regions."""
    monkeypatch.setattr(probe, "_STEPS", 50)
    monkeypatch.setattr(probe, "_WIDTH", 32)
    monkeypatch.setattr(probe, "_LEARNING_RATE", 1e-2)


def figures(encode: Callable[[Tensor], Codes], spec: CodeSpec, batch_size: int = 16) -> dict[str, float]:
    data = Photos(size=16, train_crops=64, val_crops=24, batch_size=batch_size, workers=0)
    found = Probe(encode, spec, "cpu")
    described = found.train(data.export_source("train"), batch_size, 0, lambda count: None)
    assert described["pictures"] == 64 and len(described["pixels"]) == 64
    share = ProcessShare(batch_size=batch_size)
    figures = found.measure(share.batches(data.export_source("val"))).together()
    return {name: each.value for name, each in figures.items()}


def known(fine: float, choices: int) -> Callable[[Tensor], Codes]:
    """Codes of known entropy: each region is fine with a probability, and each code is one of some."""
    generator = torch.Generator().manual_seed(0)

    def encode(images: Tensor) -> Codes:
        grains = (torch.rand(len(images), 2, 2, generator=generator) < fine).long()
        ids = torch.randint(choices, (len(images), 4, 4), generator=generator)
        return Codes.from_code_map(ids, grains, GRID)

    return encode


def test_it_finds_what_is_known_of_codes_positions_and_contents_apart() -> None:
    found = figures(known(0.5, 4), GRID)
    # 4 regions of 1 bit, and 10 codes of 2 bits on average: no less can be had, and little more is paid
    assert 3.9 < found["probe_position_bits_per_image"] < 4.6
    assert 0.98 < found["probe_content_bits_per_image"] / (2 * found_length(found)) < 1.15
    certain = figures(known(0.0, 1), GRID)
    assert certain["probe_bits_per_image"] < 0.3
    for each in (found, certain):
        whole = each["probe_position_bits_per_image"] + each["probe_content_bits_per_image"]
        assert whole == pytest.approx(each["probe_bits_per_image"])


def found_length(found: dict[str, float]) -> float:
    return found["probe_bits_per_image"] / found["probe_bits_per_code"]


def test_codes_on_a_row_pay_for_their_end() -> None:
    generator = torch.Generator().manual_seed(0)

    def encode(images: Tensor) -> Codes:
        lengths = torch.randint(2, 6, (len(images),), generator=generator)
        return Codes(torch.full((int(lengths.sum()),), 3), lengths)

    found = figures(encode, ROW)
    # which of 4 lengths is all that there is to say
    assert 1.9 < found["probe_bits_per_image"] < 2.6 and found["probe_position_bits_per_image"] == 0
    assert 2 < found_length(found) < 5


def test_it_says_the_same_again_and_leaves_no_trace() -> None:
    tokenizer = Grey()
    torch.manual_seed(1)
    first, drawn = figures(tokenizer.encode, tokenizer.spec), torch.rand(1)
    torch.manual_seed(1)
    assert drawn == torch.rand(1)
    torch.manual_seed(2)
    again = figures(tokenizer.encode, tokenizer.spec, batch_size=7)
    assert again == pytest.approx(first, rel=1e-5)
    assert first["probe_bits_per_image"] < 16 * math.log2(64)  # neighbours tell of each other


def test_pictures_of_several_sizes_are_those_of_one_prior() -> None:
    generator, described = torch.Generator().manual_seed(0), []

    def encode(images: Tensor) -> Codes:
        regions = (len(images), images.shape[2] // 8, images.shape[3] // 8)
        ids = torch.randint(4, (len(images), 2 * regions[1], 2 * regions[2]), generator=generator)
        return Codes.from_code_map(ids, torch.randint(2, regions, generator=generator), GRID)

    for batch_size in (16, 5):
        data = Photos(size=[(16, 16), (8, 24)], train_crops=64, val_crops=24, batch_size=batch_size, workers=0)
        found = Probe(encode, GRID, "cpu")
        described.append(found.train(data.export_source("train"), batch_size, 0, lambda count: None))
        share = ProcessShare(batch_size=batch_size)
        figures = found.measure(share.batches(data.export_source("val"))).together()
        values = {name: each.value for name, each in figures.items()}
        # a bit a region, and 2 bits a code, less what nobody can know
        assert 2.9 < values["probe_position_bits_per_image"] < 4.6
        assert 0.98 < values["probe_content_bits_per_image"] / (2 * found_length(values)) < 1.15
    assert described[0] == described[1] and described[0]["pictures"] == 64


def test_what_it_cannot_take() -> None:
    with pytest.raises(UserError, match="names no max_length"):
        Probe(lambda images: Codes(images, images), CodeSpec(8), "cpu")
    none = Photos(size=16, workers=0).export_source("train")
    none.pictures = 0
    with pytest.raises(UserError, match="there are none"):
        Probe(known(0, 1), GRID, "cpu").train(none, 4, 0, lambda count: None)


def test_training_pictures_are_spread_evenly() -> None:
    assert training_places(3) == [0, 1, 2]
    assert training_places(2 * PICTURES)[:3] == [0, 2, 4] and len(training_places(10**6)) == PICTURES
