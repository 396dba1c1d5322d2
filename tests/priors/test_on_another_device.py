"""How often sampling waits for a device, with guidance and where the length is controlled too."""

from typing import Any

import pytest
import torch

from tests.tiny_priors import TRANSFORMERS, tiny_prior
from vltok.interfaces import Prior, SamplingConfig
from vltok.priors.sequence import SequencePrior
from vltok.priors.stepwise import STEPS_BETWEEN_LOOKS
from vltok.testing.other_device import another_device

#: What is read where images end: how many codes there are, and where they go.
AT_AN_END = 2


@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
@pytest.mark.parametrize("kind", TRANSFORMERS, ids=lambda kind: kind.__name__)
def test_sampling_waits_once_in_sixteen_steps(kind: type[Prior]) -> None:
    options: dict[str, Any] = {"guidance": 2.0, "precision": "bfloat16"}
    if kind is not SequencePrior:  # which has one length alone
        options["codes"] = 34
    factors = (1,) if kind is SequencePrior else (2, 1)
    prior = tiny_prior(kind, 8, factors, (4, 4), width=8, classes=3, label_dropout=0.1)
    labels = torch.tensor([0, 2])
    with another_device() as device:
        prior.to(device.name)
        sampler = prior.sampler(SamplingConfig(**options))
        device.forget()
        steps, images = 0, 0
        waits: list[list[str]] = []

        def count(*_: Any) -> None:
            nonlocal steps
            steps += 1
            waits.append([*device.read_backs, *device.uploads])

        def ended(_: int) -> None:
            nonlocal images
            images += 1

        sampler.drawing.observe = count
        sampler(labels, torch.Generator().manual_seed(0), progress=ended)
    looks = steps // STEPS_BETWEEN_LOOKS
    assert looks and steps % STEPS_BETWEEN_LOOKS == 0
    # within a stretch of steps nothing waits: it can be captured as a graph
    assert all(waits[step] == waits[step + 1] for step in range(steps - 1) if (step + 1) % STEPS_BETWEEN_LOOKS)
    assert len(device.read_backs) <= looks + AT_AN_END * images, device.read_backs
