"""The quality of a codec for a rate: against every quality, on photographs."""

import pytest

from vltok.errors import UserError
from vltok.evaluation.codec_rates import find_quality
from vltok.evaluation.coders import HIGHEST_QUALITY, CodecCoder
from vltok.evaluation.measurement import ProcessShare
from vltok.measures.pixels import to_bytes
from vltok.pictures.photos import Photos

SHARE = ProcessShare(batch_size=4)


@pytest.fixture(scope="module")
def source():
    return Photos(size=48, batch_size=4, train_crops=4, val_crops=6).export_source("val")


@pytest.fixture(scope="module")
def rates(source) -> dict[int, float]:
    """The mean rate of JPEG over the pictures, at each quality."""
    batches = [to_bytes(batch.images) for batch in SHARE.batches(source)]
    found = {}
    for quality in range(1, HIGHEST_QUALITY["jpeg"] + 1):
        coder = CodecCoder("jpeg", quality)
        found[quality] = sum(coder(pixels).bits.double().sum().item() for pixels in batches) / 6 / 48**2
    return found


@pytest.mark.parametrize("quality", [1, 40, 95])
def test_it_is_the_nearest_rate_that_is_not_above(source, rates, quality):
    asked = rates[quality] + 1e-9
    found = find_quality("jpeg", asked, source, SHARE)
    assert rates[found] == max(rate for rate in rates.values() if rate <= asked)


def test_more_than_the_highest_quality_takes(source):
    assert find_quality("jpeg", 99.0, source, SHARE) == 95


def test_less_than_the_lowest_quality_takes(source, rates):
    with pytest.raises(UserError, match=f"too few for jpeg: its lowest quality takes {rates[1]:.4g} on"):
        find_quality("jpeg", rates[1] / 2, source, SHARE)
