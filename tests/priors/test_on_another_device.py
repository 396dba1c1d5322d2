"""How often sampling waits for a device."""

import pytest
import torch

from tests.tiny_priors import tiny_prior
from vltok.interfaces import SamplingConfig
from vltok.priors.fixed_raster import FixedRaster
from vltok.priors.stepwise import STEPS_BETWEEN_LOOKS
from vltok.testing import PretendedDevice


@pytest.mark.parametrize("side", [4, 8])
def test_sampling_waits_once_in_sixteen_steps(side: int) -> None:
    prior = tiny_prior(FixedRaster, 8, (1,), (side, side), width=8)
    with PretendedDevice(double_precision=False) as device:
        prior.to(device.name)
        prior.sample(2, SamplingConfig(), torch.Generator().manual_seed(0))
    looks = side**2 // STEPS_BETWEEN_LOOKS
    # two at the end: how many codes there are, and where they go
    assert len(device.read_backs) == looks + 2, device.read_backs
