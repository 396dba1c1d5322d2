import pytest
import torch

from vltok.codes import Codes, CodeSpec
from vltok.drawing.keeping import Kept
from vltok.errors import UserError
from vltok.testing import random_codes

SPEC = CodeSpec(9, (4, 2, 1), (2, 3))


def test_codes_are_kept_where_their_region_is():
    image = random_codes(SPEC, 1)
    regions = torch.tensor([[True, False, True], [False, False, True]])
    kept = Kept.regions(image, regions)
    grains = image.require_grains()[0]
    assert torch.equal(kept.granularities.view(2, 3), torch.where(regions, grains, -1))
    places = kept.laid(SPEC)
    assert len(places) == sum(map(SPEC.positions, range(3)))
    assert (places >= 0).sum() == torch.tensor(SPEC.codes_per_region)[grains[regions]].sum()
    offset = 0
    for granularity, side in enumerate(SPEC.sides):
        # what lies there on the finest grid, where the region is kept and of this granularity
        step = SPEC.sides[-1] // side
        there = (regions & (grains == granularity)).repeat_interleave(side, 0).repeat_interleave(side, 1)
        found = places[offset : offset + SPEC.positions(granularity)].view(2 * side, 3 * side)
        expected = image.to_code_map(SPEC)[0, ::step, ::step]
        assert torch.equal(found, torch.where(there, expected, -1))
        offset += SPEC.positions(granularity)


def test_a_grain_map_keeps_no_code():
    grains = torch.tensor([[0, 1, 2], [2, 1, 0]])
    kept = Kept.grain_map(grains, SPEC)
    assert kept.granularities.tolist() == grains.flatten().tolist()
    assert (kept.laid(SPEC) == -1).all() and len(kept.codes.validate(SPEC)) == 1


def test_what_cannot_be_kept_is_refused():
    every = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(UserError, match=r"one image of \(2, 3\) regions is kept, not 2 of \(2, 3\)"):
        Kept.regions(random_codes(SPEC, 2), every)
    with pytest.raises(UserError, match=r"one image of \(3, 2\) regions is kept, not 1 of \(2, 3\)"):
        Kept.regions(random_codes(SPEC, 1), every.T)
    with pytest.raises(UserError, match="no grid"):
        Kept.regions(Codes(torch.zeros(1, dtype=torch.long), torch.tensor([1])), every)
    with pytest.raises(UserError, match="outside 0…2"):
        Kept.grain_map(torch.full((2, 3), 3), SPEC)
