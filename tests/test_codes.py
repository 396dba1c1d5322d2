"""Codes against a plain reading of their definition, written with loops."""

import copy
import dataclasses
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vltok.codes import Codes, CodeSpec, Ratios
from vltok.errors import UserError
from vltok.testing import PretendedDevice

SPEC = CodeSpec(10, (1, 2), regions=(1, 2))
#: Its codes have two ids each.
TWO = dataclasses.replace(SPEC, codebooks=2)
GOOD = Codes(torch.tensor([3, 1, 2, 3, 4]), torch.tensor([5]), torch.tensor([[[1, 0]]]), torch.tensor([0]), ("ünï",))
TWICE = {"grains": GOOD.grains.repeat(2, 1, 1), "labels": None, "texts": None}
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


def two_of(spec: CodeSpec, code_map: torch.Tensor) -> tuple[CodeSpec, torch.Tensor]:
    """The same with a second id for each code, which follows from the first."""
    return dataclasses.replace(spec, codebooks=2), torch.stack([code_map, (code_map * 3 + 1) % spec.codebook_size], -1)


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


def test_nobody_waits_for_the_ids_of_a_code_map_before_asking_for_them() -> None:
    with PretendedDevice() as device:
        code_map, grains = GOOD.to_code_map(SPEC).to(device.name), GOOD.grains.to(device.name)
        there = Codes.from_code_map(code_map, grains, SPEC)
        device.forget()
        assert there.device.type == device.name and len(there) == 1
        assert there.occurring.shape == (8,) and not device.read_backs
        assert there.ids.numel() == 5 and len(device.read_backs) == 1


def test_codes_of_a_code_map_are_codes_like_others() -> None:
    def fresh() -> Codes:
        return Codes.from_code_map(GOOD.to_code_map(SPEC), GOOD.grains, SPEC, GOOD.labels)

    assert fresh().occurring.unique().equal(GOOD.ids.unique()) and GOOD.occurring.equal(GOOD.ids)
    for copied in (pickle.loads(pickle.dumps(fresh())), copy.deepcopy(fresh()), dataclasses.replace(fresh()), fresh()):
        assert copied.equal(dataclasses.replace(GOOD, texts=None))
    with pytest.raises(AttributeError, match="Codes has no attribute 'idx'"):
        fresh().idx  # noqa: B018


@settings(max_examples=25, deadline=None)
@given(numbers())
def test_code_maps_come_back(drawn) -> None:
    spec, grains, code_map = batch_of(drawn)
    codes = Codes.from_code_map(code_map, grains, spec)
    assert torch.equal(codes.to_code_map(spec), code_map)
    assert Codes.from_code_map(codes.to_code_map(spec), grains, spec).equal(codes)


@settings(max_examples=25, deadline=None)
@given(numbers(fewest=1))
def test_several_ids_of_a_code_go_where_one_would(drawn) -> None:
    spec, grains, code_map = batch_of(drawn)
    one = Codes.from_code_map(code_map, grains, spec)
    spec, both = two_of(spec, code_map)
    codes = Codes.from_code_map(both, grains, spec).validate(spec)
    assert codes.lengths.equal(one.lengths) and codes.ids[:, 0].equal(one.ids)
    assert codes.to_code_map(spec).equal(both) and len(codes.occurring) == code_map.numel()
    assert codes.granularities(spec).equal(one.granularities(spec)) and codes.positions(spec).equal(one.positions(spec))
    assert codes[::-1].equal(Codes.from_code_map(both.flip(0), grains.flip(0), spec))
    assert Codes.concatenate(list(codes)).equal(codes) and not codes.equal(one)
    with pytest.raises(UserError, match="different numbers of ids"):
        Codes.concatenate([codes, one])
    with pytest.raises(UserError, match="needs a code map"):
        Codes.from_code_map(code_map, grains, spec)


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


def four() -> Codes:
    """Four images of 1, 0, 2 and 3 codes."""
    texts = ("a cat", "", "two cats — or three", "a dog")
    labels, embeddings = torch.arange(4) + 5, torch.arange(8.0).view(4, 2) / 3
    return Codes(torch.arange(6), torch.tensor([1, 0, 2, 3]), None, labels, texts, embeddings)


@pytest.mark.parametrize("index", [2, [3, 0, 0], slice(None, None, -1), [], [True, False, False, True]], ids=repr)
def test_texts_and_embeddings_stay_with_their_images(index) -> None:
    codes = four()[index]
    assert codes.embeddings.equal(four().embeddings[codes.labels - 5])
    assert Codes.concatenate(list(four())).equal(four()) and not four().equal(
        dataclasses.replace(four(), embeddings=-four().embeddings)
    )
    assert codes.texts == tuple(four().texts[label - 5] for label in codes.labels.tolist())
    assert Codes.concatenate([four(), codes]).texts == four().texts + codes.texts
    assert not four().equal(dataclasses.replace(four(), texts=four().texts[::-1]))


@pytest.mark.usefixtures("unchecked")
def test_embeddings_that_are_none_are_refused() -> None:
    for embeddings, said in [
        (torch.rand(4, 2).double(), "embeddings of codes must be float32, not torch.float64"),
        (torch.rand(4), r"embeddings of codes must have the shape \[b e\], not \[4\]"),
        (torch.rand(3, 2), "there are 3 embeddings for 4 images"),
        (torch.full((4, 2), torch.inf), "embeddings of codes must be finite numbers"),
    ]:
        with pytest.raises(UserError, match=said):
            dataclasses.replace(four(), embeddings=embeddings).validate(CodeSpec(8, max_length=4))
    for embeddings in (None, torch.rand(4, 3)):
        with pytest.raises(UserError, match="codes with different embeddings do not go into one batch"):
            Codes.concatenate([four(), dataclasses.replace(four(), embeddings=embeddings)])
    with pytest.raises(UserError, match="have 2 numbers, but the prior reads 3: give others"):
        four().require_embeddings(3)


def test_codes_with_texts_and_codes_without_are_no_batch() -> None:
    with pytest.raises(UserError, match="codes with texts and codes without"):
        Codes.concatenate([four(), dataclasses.replace(four(), texts=None)])
    with pytest.raises(UserError, match="3 texts for 4 images"):
        dataclasses.replace(four(), texts=four().texts[:3]).validate(CodeSpec(8, max_length=4))
    with pytest.raises(UserError, match="no texts, which a prior with a text encoder learns from"):
        dataclasses.replace(four(), texts=None).require_texts()


@pytest.mark.parametrize(
    ("index", "images"),
    [
        *((kind(number), [number % 4]) for kind in (int, np.int64, np.int8, torch.tensor) for number in (2, -1)),
        (np.uint8(3), [3]),
        (np.array(2), [2]),
        (torch.tensor([3]), [3]),
        ([], []),
        ((), []),
        (np.array([]), []),
        (torch.tensor([], dtype=torch.long), []),
        (slice(None, None, -2), [3, 1]),
        (slice(-3, np.int64(3)), [1, 2]),
        (slice(9, 12), []),
        ([3, 0, 0], [3, 0, 0]),
        ((1, -4), [1, 0]),
        (range(1, 4, 2), [1, 3]),
        ([np.int64(1), 2], [1, 2]),
        (np.array([3, 1], dtype=np.uint8), [3, 1]),
        (torch.tensor([2, 1], dtype=torch.uint8), [2, 1]),
        ([True, False, False, True], [0, 3]),
        (np.array([False, True, True, False]), [1, 2]),
        (torch.zeros(4, dtype=torch.bool), []),
    ],
    ids=repr,
)
def test_every_way_to_name_images_gives_them(index, images) -> None:
    codes = four()
    expected = [codes.ids.split(codes.lengths.tolist())[image].tolist() for image in images]
    chosen = codes[index]
    assert [image.ids.tolist() for image in chosen] == expected
    assert chosen.labels.tolist() == [image + 5 for image in images]


@pytest.mark.parametrize(
    "index",
    [
        4,
        -5,
        np.int64(4),
        torch.tensor(-5),
        [0, 4],
        torch.tensor([4]),
        [True] * 3,
        np.uint64(2**64 - 1),
        2**70,
        torch.tensor([2**64 - 1], dtype=torch.uint64),
    ],
    ids=repr,
)
def test_an_image_outside_the_batch_is_an_index_error(index) -> None:
    with pytest.raises(IndexError, match=r"(of|for) a batch of 4"):
        four()[index]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "index",
    [
        1.0,
        True,
        np.bool_(True),
        torch.tensor(True),
        None,
        "1",
        "abc",
        [0.5],
        torch.tensor([1.0]),
        [[0, 1]],
        {0: 1},
        ...,
    ],
    ids=repr,
)
def test_what_names_no_images_is_a_type_error(index) -> None:
    with pytest.raises(TypeError, match=r"^codes take the number of an image, a slice, a row of numbers, or a mask"):
        four()[index]


@pytest.mark.usefixtures("unchecked")
def test_codes_and_specs_are_copied_and_pickled() -> None:
    for copied in (copy.deepcopy(GOOD), copy.copy(GOOD), pickle.loads(pickle.dumps(GOOD))):
        assert copied.equal(GOOD)
        assert copied != GOOD and hash(copied) != hash(GOOD), "codes are told apart by `equal`, as tensors are"
    for copied in (copy.deepcopy(SPEC), pickle.loads(pickle.dumps(SPEC)), CodeSpec(np.int64(10), [1, 2], [1, 2])):
        assert copied == SPEC and hash(copied) == hash(SPEC)


def test_saved_codes_load_where_no_pickle_is_trusted(tmp_path) -> None:
    for codes in (GOOD, dataclasses.replace(GOOD, labels=None), four()):
        torch.save({"codes": codes}, tmp_path / "codes.pt")
        assert torch.load(tmp_path / "codes.pt", weights_only=True)["codes"].equal(codes)


@pytest.mark.parametrize(("label", "remedy"), [(-1, "leave images of unknown"), (3, "set --model.prior.classes")])
def test_labels_that_are_no_classes_are_refused(label, remedy) -> None:
    labels = torch.tensor([0, label, 2, 1])
    with pytest.raises(
        UserError, match=f"^the codes have label {label}, but the prior knows 3 classes, .* 2: {remedy}"
    ):
        dataclasses.replace(four(), labels=labels).require_labels(3)


def test_labels_that_are_classes_are_given() -> None:
    assert dataclasses.replace(four(), labels=torch.tensor([0, 2, 1, 0]).int()).require_labels(3).tolist() == [
        0,
        2,
        1,
        0,
    ]
    assert four()[[]].require_labels(3).tolist() == []
    with pytest.raises(UserError, match="no labels"):
        dataclasses.replace(four(), labels=None).require_labels(3)


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
    with pytest.raises(UserError, match="regions"):
        _ = CodeSpec(8, (2, 4)).longest_length


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codebook_size": 0}, "codebook_size must be at least 1, not 0"),
        ({"codebook_size": 1, "codebooks": 0}, "codebooks must be at least 1, not 0"),
        ({"codebook_size": 1, "codebooks": 1.5}, "codebooks must be a whole number"),
        ({"codebook_size": 1, "factors": (0, 8)}, "factors must be at least 1"),
        ({"codebook_size": 1, "factors": (8, 8)}, "8 is none of 8"),
        ({"codebook_size": 1, "factors": (8, 12)}, "12 is none of 8"),
        ({"codebook_size": 1, "regions": (4, 4)}, "regions must be"),
        ({"codebook_size": 1, "factors": (8,), "regions": (0, 4)}, "regions must be"),
        ({"codebook_size": 1, "factors": (8,), "max_length": 4}, "max_length"),
        ({"codebook_size": 1, "max_length": 0}, "max_length"),
        *(
            ({"codebook_size": size}, "codebook_size must be a whole number")
            for size in (math.nan, 2.5, True, None, "8")
        ),
        ({"codebook_size": 1, "factors": (8.5,)}, "a factor must be a whole number, not 8.5"),
        ({"codebook_size": 1, "factors": (math.nan, 8)}, "a factor must be a whole number, not nan"),
        ({"codebook_size": 1, "factors": (8,), "regions": (math.inf, 1)}, "regions must be a whole number, not inf"),
        ({"codebook_size": 1, "max_length": math.inf}, "max_length must be a whole number, not inf"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_specs_that_make_no_sense(arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        CodeSpec(**arguments)


@pytest.mark.parametrize(
    "ratios",
    [{}, {8: 0.5}, {8: 0.5, 16: 0.6}, {8: -0.5, 16: 1.5}, {8: math.nan, 16: 0.5}, {8: math.inf}, {8: 0.5, "8": 0.5}],
)
@pytest.mark.usefixtures("unchecked")
def test_ratios_that_make_no_sense(ratios) -> None:
    with pytest.raises(UserError, match="sum to 1"):
        Ratios.of(ratios)


def test_ratios_go_from_coarse_to_fine() -> None:
    ratios = Ratios.of({8: 0.075, 32: 0.3, 16: 0.625})
    assert ratios == Ratios((32, 16, 8), (0.3, 0.625, 0.075))
    assert ratios.codes_per_region == pytest.approx(0.3 + 4 * 0.625 + 16 * 0.075)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": torch.tensor([3, 1, 2, 3])}, "lengths sum to 5, but there are 4 ids"),
        ({"lengths": torch.tensor([6])}, "lengths sum to 6, but there are 5 ids"),
        ({**TWICE, "lengths": torch.tensor([6, -1])}, "has -1 codes"),
        ({"ids": torch.tensor([3.0, 1, 2, 3, 4])}, r"ids of codes must be whole numbers, not torch.float32"),
        ({"labels": torch.tensor([True])}, r"labels of codes must be whole numbers, not torch.bool"),
        ({"grains": GOOD.grains.repeat(2, 1, 1)}, "2 grain maps for 1 images"),
        ({"grains": torch.tensor([[[-1, 0]]])}, "granularity outside 0…1"),
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


@pytest.mark.usefixtures("unchecked")
def test_codes_with_another_number_of_ids_than_their_spec() -> None:
    two = dataclasses.replace(GOOD, ids=torch.stack([GOOD.ids, GOOD.ids], 1)).validate(TWO)
    for codes, spec, shape in ((two, SPEC, r"\[t\], not \[5, 2\]"), (GOOD, TWO, r"\[t 2\], not \[5\]")):
        with pytest.raises(UserError, match=f"ids of codes must have the shape {shape}"):
            codes.validate(spec)
    with pytest.raises(UserError, match="from 1 to 10, outside a codebook of 10"):
        dataclasses.replace(two, ids=two.ids.clone().index_fill_(0, torch.tensor(4), 10)).validate(TWO)
    with pytest.raises(UserError, match=r"shape \[t q\], not \[1, 5, 2\]"):
        dataclasses.replace(two, ids=two.ids[None]).validate(TWO)


def test_a_code_costs_the_bits_of_all_its_ids() -> None:
    binary = CodeSpec(2**9, max_length=4, codebooks=2)
    assert (binary.bits_per_code, binary.entries, binary.id_shape) == (18, 2**10, (2,))
    assert (SPEC.bits_per_code, SPEC.entries, SPEC.id_shape) == (math.log2(10), 10, ())


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


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["ids", "lengths", "grains"])
def test_values_with_an_axis_too_many_are_refused(name: str) -> None:
    changed = dataclasses.replace(GOOD, **{name: getattr(GOOD, name)[None]})
    with pytest.raises(UserError, match=rf"{name} of codes must have the shape \["):
        changed.validate(SPEC)


def test_codes_come_back_from_their_file(tmp_path: Path) -> None:
    plain = Codes(torch.tensor([3, 1, 4]), torch.tensor([1, 0, 2]))
    shared = Codes(plain.lengths, plain.lengths)
    two = Codes(torch.tensor([[3, 1], [4, 0], [2, 2]]), plain.lengths)
    for number, codes in enumerate([GOOD, plain, shared, four(), four()[[]], four()[1], two, two[[]]]):
        codes.save(tmp_path / f"{number}.codes")
        assert Codes.load(tmp_path / f"{number}.codes").equal(codes)
    assert Codes.load(tmp_path / "0.codes", SPEC).equal(GOOD)
    with pytest.raises(UserError, match="outside a codebook of 2"):
        Codes.load(tmp_path / "1.codes", CodeSpec(2, max_length=4))


@pytest.mark.usefixtures("unchecked")
def test_a_file_of_no_codes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes"
    about = {"format": "vltok codes", "version": "1"}
    ids, lengths = torch.tensor([3, 1, 4]), torch.tensor([1, 2])
    two, letters = {"ids": ids, "lengths": lengths}, torch.tensor([50, 50, 50], dtype=torch.uint8)

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=rf"codes' is no file of codes, or is damaged: .*{message}"):
            Codes.load(path)

    refused("No such file")
    path.write_bytes(b"rubbish")
    refused("")
    for written, metadata, message in [
        ({"ids": ids, "lengths": lengths}, {}, "not written by Codes.save"),
        ({"ids": ids}, about, "not written by Codes.save"),
        ({"ids": ids, "lengths": lengths, "more": ids}, about, "not written by Codes.save"),
        ({"ids": ids.float(), "lengths": lengths}, about, "ids of codes must be whole numbers"),
        ({"ids": ids, "lengths": lengths[:, None]}, about, "lengths of codes must have the shape"),
        ({"ids": ids, "lengths": lengths + 1}, about, "the lengths sum to 5, but there are 3 ids"),
        ({"ids": ids, "lengths": torch.tensor([4, -1])}, about, "an image has -1 codes"),
        ({"ids": ids, "lengths": lengths, "labels": ids}, about, "there are 3 labels for 2 images"),
        ({**two, "texts": letters}, about, "its texts are no bytes, or have no lengths"),
        ({**two, "texts": letters, "text_lengths": torch.tensor([2, 2])}, about, "the lengths of its texts"),
        ({**two, "texts": letters + 200, "text_lengths": torch.tensor([1, 2])}, about, "its texts are no UTF-8"),
        ({**two, "texts": letters, "text_lengths": torch.tensor([3])}, about, "there are 1 texts for 2 images"),
        ({**two, "embeddings": torch.rand(1, 2)}, about, "there are 1 embeddings for 2 images"),
    ]:
        save_file({name: value.clone() for name, value in written.items()}, path, metadata)
        refused(message)
