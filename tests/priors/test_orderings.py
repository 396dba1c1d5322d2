import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.nn.attention import Packing
from vltok.priors.orderings import CoarseToFine, RasterOrder, preceding

ORDERS = ("row-first", "region-first")


def random_codes(spec: CodeSpec, images: int, seed: int) -> Codes:
    generator = torch.Generator().manual_seed(seed)
    grains = torch.randint(spec.granularities, (images, *spec.regions), generator=generator)
    lengths = torch.tensor(spec.codes_per_region)[grains].sum((1, 2))
    return Codes(torch.randint(spec.codebook_size, (int(lengths.sum()),), generator=generator), lengths, grains)


@settings(max_examples=40, deadline=None)
@given(
    factors=st.sampled_from([(1,), (2, 1), (4, 2, 1), (8, 2, 1), (8, 4, 2, 1)]),
    regions=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    images=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    order=st.sampled_from(ORDERS),
)
def test_codes_survive_the_round_trip(factors, regions, images, seed, order):
    spec = CodeSpec(11, factors, regions)
    ordering = CoarseToFine(spec, order)
    codes = random_codes(spec, images, seed)
    sequences = ordering(codes)
    assert ordering.codes(sequences).equal(codes)
    assert sequences.packing.lengths == (codes.lengths + 2 * spec.granularities).tolist()
    assert max(sequences.packing.lengths) <= ordering.longest
    raster = RasterOrder(spec)
    sequences = raster(codes)
    assert raster.codes(sequences).equal(codes)
    assert sequences.packing.lengths == codes.lengths.tolist()


def two_images() -> tuple[CodeSpec, Codes]:
    spec = CodeSpec(100, (16, 8), (1, 2))
    # image 0: the first region is coarse, the second fine; image 1: both are fine
    grains = torch.tensor([[[0, 1]], [[1, 1]]])
    return spec, Codes(torch.arange(13), torch.tensor([5, 8]), grains)


def test_tracks_are_those_of_section_3_3():
    spec, codes = two_images()
    sequences = CoarseToFine(spec)(codes)
    # 2 coarse and 8 fine places; ⟨pad⟩, ⟨eos⟩ and ⟨sos⟩ follow them
    assert sequences.positions.tolist() == [4, 0, 3, 10, 2, 3, 6, 7, 9, 4, 3, 10, 0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert sequences.contents.tolist() == [102, 0, 101, 102, 1, 2, 3, 4, 101, 102, 101, 102, *range(5, 13), 101]
    assert sequences.granularities.tolist() == [0] * 3 + [1] * 6 + [0] * 2 + [1] * 10


def test_region_first_finishes_a_region_before_the_next():
    spec, codes = two_images()
    sequences = CoarseToFine(spec, "region-first")(codes)
    assert sequences.positions.tolist()[-9:-1] == [0, 1, 4, 5, 2, 3, 6, 7]
    assert sequences.contents.tolist()[-9:-1] == [5, 6, 9, 10, 7, 8, 11, 12]


def test_starts_may_name_a_class():
    spec, codes = two_images()
    sequences = CoarseToFine(spec)(codes, torch.tensor([105, 107]), torch.tensor([3, 5]))
    starts = sequences.contents >= 102
    assert sequences.contents[starts].tolist() == [105, 105, 107, 107]
    assert sequences.positions[starts].tolist() == [4 + 3, 10 + 3, 4 + 5, 10 + 5]


def test_shifting_stays_within_images():
    spec, codes = two_images()
    sequences = CoarseToFine(spec)(codes)
    read, targets = sequences.shifted()
    first, second = sequences.contents.split(sequences.packing.lengths)
    assert read.contents.tolist() == [*first[:-1].tolist(), *second[:-1].tolist()]
    assert targets.contents.tolist() == [*first[1:].tolist(), *second[1:].tolist()]
    assert read.packing.lengths == targets.packing.lengths == [8, 11]


def test_raster_order_finishes_a_region_before_the_next():
    spec, codes = two_images()
    order = RasterOrder(spec)
    sequences = order(codes)
    # codes are stored row by row over the fine map: of image 1 these are 5 6 7 8 above 9 10 11 12
    assert sequences.contents.tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 10, 7, 8, 11, 12]
    assert order.layout.region[sequences.places].tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    # a coarse region's only place, then the four of a fine one
    assert order.layout.inside[sequences.places].tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("ordering", "order"),
    [
        (CoarseToFine, {}),
        (CoarseToFine, {"order": "region-first"}),
        (RasterOrder, {}),
    ],
)
@pytest.mark.parametrize("factors", [(2, 1), (8, 4, 2)])
def test_the_steps_put_codes_into_the_order_of_the_sequence(ordering, order, factors):
    spec = CodeSpec(7, factors, (2, 3))
    codes = random_codes(spec, 3, seed=5)
    chain = ordering(spec, **order)
    contents = chain(codes).contents
    starts = Packing(codes.lengths).cu_seqlens[:-1].repeat_interleave(codes.lengths)
    laid = torch.full_like(codes.ids, -1)
    laid[starts + chain.steps(codes)] = codes.ids
    assert torch.equal(laid, contents[contents < spec.codebook_size])


def test_raster_order_ends_a_fine_region_before_a_later_coarse_one():
    spec = CodeSpec(100, (16, 8), (1, 2))
    codes = Codes(torch.arange(5), torch.tensor([5]), torch.tensor([[[1, 0]]]))
    assert CoarseToFine(spec).steps(codes).tolist() == [0, 1, 2, 3, 4]
    assert RasterOrder(spec).steps(codes).tolist() == [4, 0, 1, 2, 3]


def test_tokens_are_preceded_by_those_before_them_or_a_start():
    packing = Packing(torch.tensor([2, 3]))
    assert preceding(torch.arange(5), torch.tensor([8, 9]), packing).tolist() == [8, 0, 9, 2, 3]
    vectors = preceding(torch.eye(5), torch.zeros(2, 5), packing)
    assert vectors.argmax(1).tolist() == [0, 0, 0, 2, 3] and not vectors[[0, 2]].any()


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("order", ORDERS)
def test_tokens_equal_the_original_permuters(size, order, parity):
    tensors, config = parity("permuter")
    grains, ids = tensors[f"{size}.in.grain_indices"], config[size]
    spec = CodeSpec(ids["content_pad_code"], (2, 1), tuple(grains.shape[1:]))
    codes = Codes.from_code_map(tensors[f"{size}.in.indices"], grains, spec)
    ordering = CoarseToFine(spec, order)
    sequences = ordering(codes)
    starts = sequences.contents == spec.content_start
    for track, ours in (("content", sequences.contents), ("position", sequences.positions)):
        rows = []
        for part in ("coarse", "fine"):
            pad = ids["content_pad_code" if track == "content" else f"{part}_position_pad_code"]
            padded = tensors[f"{size}.{order}.{part}_{track}"]
            rows.append([row[row != pad] for row in padded])
        theirs = torch.cat([part for image in zip(*rows, strict=True) for part in image])
        assert torch.equal(ours[~starts], theirs)
    back = ordering.codes(sequences).to_code_map(spec)
    assert torch.equal(back, tensors[f"{size}.{order}.forward_back"])


def test_errors_name_the_remedy():
    _, codes = two_images()
    with pytest.raises(UserError, match="grid"):
        CoarseToFine(CodeSpec(10, max_length=4))
    with pytest.raises(UserError, match="regions"):
        CoarseToFine(CodeSpec(100, (16, 8), (2, 2)))(codes)
