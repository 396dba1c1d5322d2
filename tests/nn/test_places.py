import itertools

import pytest
import torch
from torch.testing import assert_close

from vltok.codes import CodeSpec
from vltok.nn import places
from vltok.nn.places import PLACE_FEATURES, PlaceHead, PlaceTable, place_features, step_features

SPECS = [CodeSpec(5, (8, 2), regions=regions) for regions in ((2, 3), (3, 2), (1, 6))]


def test_every_place_of_every_grid_has_features_of_its_own():
    maps = [place_features(spec, granularity) for spec in SPECS for granularity in range(2)]
    assert [len(features) for features in maps] == [6, 96] * 3
    for features in maps:
        assert features.shape[1] == PLACE_FEATURES and len(features.unique(dim=0)) == len(features)
    # whose top left corners are the same place, but of other grids
    firsts = torch.stack([features[0] for features in maps[::2]])
    assert all((first - second).abs().max() > 0.1 for first, second in itertools.combinations(firsts, 2))
    assert len(step_features(300).unique(dim=0)) == 300


def test_a_table_has_the_rows_of_each_kind_and_those_that_are_learned():
    table = PlaceTable(8, kinds=2, others=3)
    maps = [place_features(SPECS[0], granularity) for granularity in range(2)]
    rows = table(maps)
    assert rows.weight.shape == (6 + 3 + 96 + 3, 8)
    assert rows(torch.tensor([8, 107])).equal(table.others.weight[[2, 5]])
    assert not rows.weight[:6].isclose(PlaceTable.forward(table, maps[:1] * 2).weight[9:15]).all()


@pytest.mark.parametrize("at_once", [2**25, 150])
def test_a_head_knows_the_positions_of_each_granularity_alone(at_once, monkeypatch):
    monkeypatch.setattr(places, "LOGITS_AT_ONCE", at_once)
    head = PlaceHead(8, 2, 3)
    sizes = torch.tensor([6 + 3, 96 + 3])
    keys = head([place_features(SPECS[0], granularity) for granularity in range(2)], sizes, 99)
    hidden, granularities = torch.randn(7, 8), torch.tensor([0, 1, 1, 0, 0, 1, 0])
    logits = keys.position_logits(hidden, granularities)
    assert (logits.isfinite().sum(1) == sizes[granularities]).all() and logits[0, :9].isfinite().all()
    assert_close(logits[3, :9], head.query(head.norm(hidden[3:4]))[0] @ keys.keys[:9].T)
    positions = torch.tensor([8, 98, 9, 0, 5, 0, 3])
    nats = keys.position_nats(hidden, positions, granularities)
    assert_close(nats, -logits.log_softmax(1)[torch.arange(7), positions])
    nats.sum().backward()
    assert all(parameter.grad.any() for parameter in head.parameters())
