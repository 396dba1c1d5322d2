import pytest
import torch

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.priors.layout import FREE, Layout
from vltok.testing import random_codes


@pytest.mark.parametrize("factors", [(1,), (2, 1), (4, 2, 1), (9, 3)], ids=str)
def test_every_place_belongs_to_one_region_and_one_granularity(factors):
    spec = CodeSpec(5, factors, (2, 3))
    layout = Layout(spec)
    assert layout.count == len(layout.region) == sum(map(spec.positions, range(spec.granularities)))
    assert layout.of_region.flatten().sort().values.equal(torch.arange(layout.count))
    for region, places in enumerate(layout.of_region):
        assert (layout.region[places] == region).all()
        assert layout.inside[places].equal(torch.arange(layout.insides))
    for granularity, codes in enumerate(spec.codes_per_region):
        first = int(layout.inside_offsets[granularity])
        assert (layout.granularity[layout.of_region[:, first : first + codes]] == granularity).all()


def test_a_fine_regions_places_are_its_corner_of_the_position_map():
    layout = Layout(CodeSpec(5, (2, 1), (1, 2)))
    # two coarse places, then 2 rows of 4 fine ones
    assert layout.of_region.tolist() == [[0, 2, 3, 6, 7], [1, 4, 5, 8, 9]]


def test_codes_are_laid_where_the_code_map_has_them():
    spec = CodeSpec(50, (2, 1), (2, 2))
    codes = random_codes(spec, 7)
    layout = Layout(spec)
    laid = layout.lay(codes)
    assert (laid != FREE).sum(1).equal(codes.lengths)
    positions, granularities = codes.positions(spec), codes.granularities(spec)
    images = torch.repeat_interleave(torch.arange(7), codes.lengths)
    assert laid[images, layout.offsets[granularities] + positions].equal(codes.ids)
    assert layout.collect(laid).equal(codes)


def test_errors_name_the_remedy():
    with pytest.raises(UserError, match="factors"):
        Layout(CodeSpec(5, max_length=4))
    with pytest.raises(UserError, match="regions"):
        Layout(CodeSpec(5, (2, 1), (1, 2))).lay(random_codes(CodeSpec(5, (2, 1), (2, 2)), 1))
    with pytest.raises(UserError, match="grid"):
        Layout(CodeSpec(5, (2, 1), (1, 2))).lay(Codes(torch.tensor([1]), torch.tensor([1])))
