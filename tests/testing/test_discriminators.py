"""Every registered discriminator holds the contract, and the contract finds what is broken."""

import pytest
import torch
from torch import Tensor, nn

from vltok.interfaces import Discriminator
from vltok.losses.adversarial import PatchGAN
from vltok.registry import components
from vltok.testing import DiscriminatorContract

from .broken import assert_found


class TestPatchGAN(DiscriminatorContract):
    def build(self):
        return PatchGAN(width=8, layers=2)


class Grain(Discriminator):
    """Looks at small patches.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.patches = nn.Sequential(nn.Conv2d(3, 64, 4, stride=4), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 1))
        self.idle = nn.Parameter(torch.zeros(())) if fault == "idle" else None

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[2:]) < 4:
            if self.fault == "empty":
                return images.new_zeros(len(images), 1, 0, 0)
            images = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
        if self.fault == "blind":
            images = images.detach()
        if self.fault == "mixing":
            images = images - images.mean((0, 2, 3), keepdim=True)
        logits = self.patches(images)
        if self.fault == "constant":
            logits = 0 * logits + self.patches[2].bias[0]
        return logits.mean((1, 2, 3)) if self.fault == "flat" else logits


class TestGrain(DiscriminatorContract):
    def build(self):
        return Grain()


def test_every_registered_discriminator_is_held_to_the_contract():
    registered = {component.load() for component in components("discriminator") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in DiscriminatorContract.__subclasses__()}
    assert held - {Grain} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("flat", "test_there_is_a_logit_for_each_patch"),
        ("empty", "test_images_that_are_too_small_are_refused"),
        ("mixing", "test_images_of_a_batch_do_not_meet_in_evaluation"),
        ("blind", "test_its_gradient_reaches_the_images"),
        ("constant", "test_it_learns_to_tell_real_from_painted"),
        ("idle", "test_every_parameter_gets_a_gradient"),
    ],
)
def test_the_contract_finds_a_discriminator_that_is(fault, test):
    assert_found(TestGrain, test, lambda: Grain(fault))
