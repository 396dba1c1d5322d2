"""How often sampling waits for a device."""

from typing import Any

import pytest
import torch

from tests.tiny_priors import TRANSFORMERS, tiny_prior
from vltok.interfaces import Prior, SamplingConfig
from vltok.priors.fixed_raster import FixedRaster
from vltok.priors.stepwise import STEPS_BETWEEN_LOOKS
from vltok.testing import PretendedDevice

#: What is read where images end: how many codes there are, and where they go.
AT_AN_END = 2


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"codes": 41}, {"precision": "bfloat16"}], ids=str)
@pytest.mark.parametrize("kind", TRANSFORMERS, ids=lambda kind: kind.__name__)
def test_sampling_waits_once_in_sixteen_steps(kind: type[Prior], options: dict[str, Any]) -> None:
    if kind is FixedRaster and "codes" in options:
        options = {}  # which knows one length alone
    factors = (1,) if kind is FixedRaster else (2, 1)
    prior = tiny_prior(kind, 8, factors, (4, 5), width=8, classes=3, label_dropout=0.1)
    labels = torch.tensor([0, 2])
    with PretendedDevice(double_precision=False) as device:
        prior.to(device.name)
        sampler = prior.sampler(SamplingConfig(**options))
        device.forget()
        steps, images = 0, 0

        def count(*_: Any) -> None:
            nonlocal steps
            steps += 1

        def ended(_: int) -> None:
            nonlocal images
            images += 1

        sampler.drawing.observe = count
        sampler(labels, torch.Generator().manual_seed(0), progress=ended)
    looks = steps // STEPS_BETWEEN_LOOKS
    assert looks and steps % STEPS_BETWEEN_LOOKS == 0
    assert len(device.read_backs) <= looks + AT_AN_END * images, device.read_backs
