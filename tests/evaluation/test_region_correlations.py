"""The errors at fixed length against the granularities: ranks against scipy's, on photographs."""

import numpy as np
import pytest
import skimage.data
import torch
from scipy.stats import spearmanr

from vltok.evaluation.region_correlations import RegionCorrelation
from vltok.measures.regions import region_l1


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    photograph = torch.from_numpy(skimage.data.coffee()).movedim(-1, 0)
    return torch.stack([photograph[:, top : top + 32, 200:264] for top in (0, 90, 180)])


@pytest.fixture(scope="module")
def decoded(pictures) -> torch.Tensor:
    """The mean colour of each region of 8 pixels."""
    means = torch.nn.functional.avg_pool2d(pictures.float(), 8)
    return means.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).round().byte()


def region_errors(decoded, pictures):
    """By a loop over the regions."""
    error = (decoded.int() - pictures.int()).abs()
    places = [(8 * row, 8 * column) for row in range(4) for column in range(8)]
    return np.array([[image[:, y : y + 8, x : x + 8].sum() for y, x in places] for image in error])


def test_the_correlations_agree_with_scipy(pictures, decoded):
    grains = torch.randint(3, (3, 4, 8), generator=torch.Generator().manual_seed(1))
    regions = RegionCorrelation("error_correlation")
    found = torch.cat(
        [regions.update(grains[part], region_l1(decoded[part], pictures[part], 8)) for part in (slice(2), slice(2, 3))]
    )
    expected = region_errors(decoded, pictures)
    for place in range(3):
        assert found[place] == pytest.approx(spearmanr(grains[place].flatten(), expected[place]).statistic)
    values = regions.values(found.numpy())
    overall = spearmanr(grains.flatten(), expected.flatten()).statistic
    assert values["error_correlation"].value == pytest.approx(overall)
    mean = values["error_correlation_per_picture"]
    assert mean.value == pytest.approx(found.mean()) and mean.low <= mean.value <= mean.high


def test_codes_that_follow_the_error_correlate_with_it(pictures, decoded):
    expected = torch.from_numpy(region_errors(decoded, pictures)).float()
    grains = (expected > expected.median(dim=1, keepdim=True).values).long().view(3, 4, 8)
    regions = RegionCorrelation("error_correlation")
    found = regions.update(grains, region_l1(decoded, pictures, 8))
    assert found.min() > 0.8 and regions.update(1 - grains, region_l1(decoded, pictures, 8)) == pytest.approx(-found)


def test_what_has_no_rank_has_no_correlation(pictures, decoded):
    grains = torch.zeros(3, 4, 8, dtype=torch.long)
    regions = RegionCorrelation("error_correlation")
    found = regions.update(grains, region_l1(decoded, pictures, 8))
    assert found.isnan().all() and regions.values(found.numpy()) == {}
    grains[1, 0, 0] = 1
    found = regions.update(grains, region_l1(decoded, pictures, 8))
    assert found.isnan().tolist() == [True, False, True]
    assert regions.values(found.numpy())["error_correlation_per_picture"].value == found[1]
