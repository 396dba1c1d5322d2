"""Codes against a plain reading of their definition, written with loops."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.codes import Codes, CodeSpec, Ratios
from vltok.errors import UserError

FACTORS = [(16,), (8, 16), (32, 16, 8), (4, 12), (32, 16, 8, 4)]


def numbers(fewest: int = 0) -> st.SearchStrategy[tuple]:
    """What `batch_of` makes a batch of."""
    side = st.integers(1, 3)
    sizes = st.tuples(st.integers(fewest, 3), side, side)
    return st.tuples(st.sampled_from([1, 7, 1024]), st.sampled_from(FACTORS), sizes, st.integers(0, 2**31))


def batch_of(numbers: tuple) -> tuple[CodeSpec, torch.Tensor, torch.Tensor]:
    """A spec, grain maps, and code maps on the finest grid whose coarse codes are replicated."""
    codebook_size, factors, (count, height, width), seed = numbers
    spec = CodeSpec(codebook_size, factors)
    generator = torch.Generator().manual_seed(seed)
    grains = torch.randint(spec.granularities, (count, height, width), generator=generator)
    finest = spec.sides[-1]
    ids = torch.randint(codebook_size, (count, height * finest, width * finest), generator=generator)
    return spec, grains, replicated(ids, grains, spec)


def replicated(ids: torch.Tensor, grains: torch.Tensor, spec: CodeSpec) -> torch.Tensor:
    """Every cell takes the value at the top left of its code."""
    ids = ids.clone()
    finest = spec.sides[-1]
    for image, row, column in torch.cartesian_prod(*map(torch.arange, grains.shape)).tolist():
        step = finest // spec.sides[grains[image, row, column]]
        region = ids[image, row * finest : (row + 1) * finest, column * finest : (column + 1) * finest]
        for y in range(0, finest, step):
            for x in range(0, finest, step):
                region[y : y + step, x : x + step] = region[y, x].clone()
    return ids


def plain(code_map: torch.Tensor, grains: torch.Tensor, spec: CodeSpec) -> list[list[tuple[int, int, int]]]:
    """For each image its (id, granularity, place) in order: coarse to fine, row by row over the position map."""
    images = []
    for cells, grain_map in zip(code_map, grains, strict=True):
        codes = []
        for granularity, side in enumerate(spec.sides):
            step = spec.sides[-1] // side
            height, width = grain_map.shape[0] * side, grain_map.shape[1] * side
            for y in range(height):
                for x in range(width):
                    if grain_map[y // side, x // side] == granularity:
                        codes.append((int(cells[y * step, x * step]), granularity, y * width + x))
        images.append(codes)
    return images


@settings(max_examples=25, deadline=None)
@given(numbers())
def test_codes_stand_coarse_to_fine_and_row_by_row(drawn) -> None:
    spec, grains, code_map = batch_of(drawn)
    codes = Codes.from_code_map(code_map, grains, spec)
    expected = plain(code_map, grains, spec)
    assert codes.lengths.tolist() == [len(image) for image in expected]
    assert codes.ids.tolist() == [code for image in expected for code, _, _ in image]
    assert codes.granularities(spec).tolist() == [granularity for image in expected for _, granularity, _ in image]
    assert codes.positions(spec).tolist() == [place for image in expected for _, _, place in image]
    assert codes.cu_seqlens.tolist() == [sum(map(len, expected[:end])) for end in range(len(expected) + 1)]
    codes.validate(spec)


@settings(max_examples=25, deadline=None)
@given(numbers())
def test_code_maps_come_back(drawn) -> None:
    spec, grains, code_map = batch_of(drawn)
    codes = Codes.from_code_map(code_map, grains, spec)
    assert torch.equal(codes.to_code_map(spec), code_map)
    assert Codes.from_code_map(codes.to_code_map(spec), grains, spec).equal(codes)


@settings(max_examples=25, deadline=None)
@given(numbers())
def test_of_copies_that_differ_the_top_left_one_is_read(drawn) -> None:
    spec, grains, _ = batch_of(drawn)
    cells = (grains.shape[0], grains.shape[1] * spec.sides[-1], grains.shape[2] * spec.sides[-1])
    differing = torch.arange(cells[0] * cells[1] * cells[2]).view(cells)
    assert torch.equal(
        Codes.from_code_map(differing, grains, spec).to_code_map(spec), replicated(differing, grains, spec)
    )


@settings(max_examples=25, deadline=None)
@given(numbers(fewest=1), st.data())
def test_indexing_gives_the_images_asked_for(drawn, data) -> None:
    spec, grains, code_map = batch_of(drawn)
    labels = torch.arange(len(grains)) + 5
    codes = Codes.from_code_map(code_map, grains, spec, labels)
    chosen = data.draw(st.lists(st.integers(-len(codes), len(codes) - 1), max_size=6))
    expected = Codes.from_code_map(code_map[chosen], grains[chosen], spec, labels[chosen])
    assert codes[chosen].equal(expected)
    assert codes[torch.tensor(chosen, dtype=torch.long)].equal(expected)
    mask = torch.rand(len(codes)) < 0.5
    assert codes[mask].equal(codes[mask.nonzero().flatten()])
    assert codes[::-1].equal(codes[list(range(len(codes)))[::-1]])
    assert codes[1:].equal(codes[list(range(1, len(codes)))])
    assert codes[-1].equal(codes[[len(codes) - 1]])


@settings(max_examples=25, deadline=None)
@given(numbers(), st.data())
def test_a_batch_taken_apart_comes_together(drawn, data) -> None:
    spec, grains, code_map = batch_of(drawn)
    codes = Codes.from_code_map(code_map, grains, spec)
    cut = data.draw(st.integers(0, len(codes)))
    assert Codes.concatenate([codes[:cut], codes[cut:]]).equal(codes)
    if len(codes):
        assert Codes.concatenate(list(codes)).equal(codes)


def test_an_image_outside_the_batch_is_an_index_error() -> None:
    codes = Codes(torch.tensor([1, 2]), torch.tensor([2]))
    for index in (1, -2, [1]):
        with pytest.raises(IndexError):
            codes[index]


def test_iterating_gives_batches_of_one() -> None:
    codes = Codes(torch.tensor([1, 2, 3]), torch.tensor([2, 0, 1]), labels=torch.tensor([4, 5, 6]))
    assert [image.ids.tolist() for image in codes] == [[1, 2], [], [3]]
    assert [image.labels.tolist() for image in codes] == [[4], [5], [6]]


def test_equal_tells_values_apart() -> None:
    codes = Codes(torch.tensor([1, 2]), torch.tensor([1, 1]), labels=torch.tensor([0, 1]))
    assert codes.equal(codes[[0, 1]])
    assert not codes.equal(codes[[1, 0]])
    assert not codes.equal(dataclasses.replace(codes, labels=None))


def test_a_paper_sized_image_has_the_papers_lengths() -> None:
    spec = CodeSpec(1024, (8, 16), regions=(16, 16))
    assert (spec.factors, spec.sides, spec.codes_per_region) == ((16, 8), (1, 2), (1, 4))
    assert spec.longest_length == 1024
    assert (spec.positions(0), spec.positions(1)) == (256, 1024)
    assert (spec.content_end, spec.content_start) == (1025, 1026)
    assert (spec.position_end(0), spec.position_start(1)) == (257, 1026)
    assert 256 * Ratios.of({8: 0.5, 16: 0.5}).codes_per_region == 640


def test_codes_without_a_grid() -> None:
    spec = CodeSpec(8, max_length=4)
    codes = Codes(torch.tensor([1, 7, 0]), torch.tensor([2, 1])).validate(spec)
    assert spec.longest_length == 4 and not spec.gridded
    with pytest.raises(UserError, match="no grain map"):
        codes.to_code_map(CodeSpec(8, (2, 4)))
    with pytest.raises(UserError, match="max_length"):
        _ = CodeSpec(8).longest_length
    with pytest.raises(UserError, match="replace"):
        _ = CodeSpec(8, (2, 4)).longest_length


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codebook_size": 0}, "codebook_size must be at least 1, not 0"),
        ({"codebook_size": 1, "factors": (0, 8)}, "factors must be at least 1"),
        ({"codebook_size": 1, "factors": (8, 8)}, "8 is none of 8"),
        ({"codebook_size": 1, "factors": (8, 12)}, "12 is none of 8"),
        ({"codebook_size": 1, "regions": (4, 4)}, "regions must be"),
        ({"codebook_size": 1, "factors": (8,), "regions": (0, 4)}, "regions must be"),
        ({"codebook_size": 1, "factors": (8,), "max_length": 4}, "max_length"),
        ({"codebook_size": 1, "max_length": 0}, "max_length"),
    ],
)
def test_specs_that_make_no_sense(arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        CodeSpec(**arguments)


@pytest.mark.parametrize("ratios", [{}, {8: 0.5}, {8: 0.5, 16: 0.6}, {8: -0.5, 16: 1.5}])
def test_ratios_that_make_no_sense(ratios) -> None:
    with pytest.raises(UserError, match="sum to 1"):
        Ratios.of(ratios)


def test_ratios_go_from_coarse_to_fine() -> None:
    ratios = Ratios.of({8: 0.075, 32: 0.3, 16: 0.625})
    assert ratios == Ratios((32, 16, 8), (0.3, 0.625, 0.075))
    assert ratios.codes_per_region == pytest.approx(0.3 + 4 * 0.625 + 16 * 0.075)


SPEC = CodeSpec(10, (1, 2), regions=(1, 2))
GOOD = Codes(torch.tensor([3, 1, 2, 3, 4]), torch.tensor([5]), torch.tensor([[[1, 0]]]), torch.tensor([0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": torch.tensor([3, 1, 2, 3])}, "lengths sum to 5, but there are 4 ids"),
        ({"lengths": torch.tensor([6, -1])}, "lengths sum"),
        ({"ids": torch.tensor([3, 1, 2, 3, 10])}, "from 1 to 10, outside a codebook of 10"),
        ({"ids": torch.tensor([3, 1, 2, 3, -1])}, "from -1 to 3"),
        ({"grains": torch.tensor([[[1, 2]]])}, "granularity outside 0…1"),
        ({"grains": torch.tensor([[[1, 1]]])}, "do not follow from the grain map"),
        ({"grains": torch.tensor([[[1], [0]]])}, r"\(2, 1\) regions, but the spec \(1, 2\)"),
        ({"grains": None}, "no grain map"),
        ({"labels": torch.tensor([0, 1])}, "2 labels for 1 images"),
    ],
)
def test_codes_that_do_not_fit_their_spec(changes, message) -> None:
    codes = copy.copy(GOOD.validate(SPEC))
    for name, value in changes.items():
        object.__setattr__(codes, name, value)  # the constructor's shapes are checked under pytest only
    with pytest.raises(UserError, match=message):
        codes.validate(SPEC)


def test_codes_longer_than_a_spec_without_a_grid_allows() -> None:
    with pytest.raises(UserError, match="5 codes, more than max_length = 4"):
        Codes(GOOD.ids, GOOD.lengths).validate(CodeSpec(10, max_length=4))


def test_code_map_of_another_size() -> None:
    with pytest.raises(UserError, match=r"grain map \(1, 2\) needs a code map \(2, 4\)"):
        Codes.from_code_map(torch.zeros(1, 2, 2, dtype=torch.long), GOOD.grains, SPEC)


def test_batches_that_do_not_go_together() -> None:
    with pytest.raises(UserError, match="no codes"):
        Codes.concatenate([])
    with pytest.raises(UserError, match="different labels"):
        Codes.concatenate([GOOD, dataclasses.replace(GOOD, labels=None)])
    tall = Codes.from_code_map(torch.zeros(1, 4, 2, dtype=torch.long), torch.zeros(1, 2, 1, dtype=torch.long), SPEC)
    with pytest.raises(UserError, match="different grains"):
        Codes.concatenate([dataclasses.replace(GOOD, labels=None), tall])


def test_moving_keeps_every_value() -> None:
    moved = GOOD.to("meta")
    assert {value.device.type for value in (moved.ids, moved.lengths, moved.grains, moved.labels)} == {"meta"}
    assert GOOD.to("cpu").equal(GOOD)
