"""Every registered encoder holds the contract, and the contract finds what is broken."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltok.interfaces import Encoder
from vltok.registry import components
from vltok.testing import EncoderContract
from vltok.tokenizers.encoders import PatchEncoder, TimmEncoder, VQGANEncoder

from .broken import assert_found


class TestVQGANEncoder(EncoderContract):
    def build(self):
        return VQGANEncoder([4, 8], width=64, multipliers=[1, 1, 1, 2], blocks=1, attention_factors=[8], channels=6)


class TestTimmEncoder(EncoderContract):
    def build(self):
        return TimmEncoder("test_resnet", [4, 8], channels=6)


class TestPatchEncoder(EncoderContract):
    def build(self):
        return PatchEncoder([4, 8, 16], width=64, blocks=1, channels=6)


class Pooling(Encoder):
    """Mixtures of colors, averaged over the cells of each grid.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.mix = nn.ModuleList(nn.Conv2d(3, 5, 1) for _ in range(2))
        self.norm = nn.BatchNorm2d(5, track_running_stats=fault != "normalized")
        self.register_buffer("seen", torch.zeros(()))

    @property
    def factors(self) -> tuple[int, ...]:
        return (2, 4) if self.fault == "reversed" else (4, 2)

    @property
    def channels(self) -> int:
        return 6 if self.fault == "narrow" else 5

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.fault == "counting":
            self.seen += 1
        maps = [self.norm(F.avg_pool2d(mix(images), factor)) for mix, factor in zip(self.mix, (4, 2), strict=True)]
        if self.fault == "blind":
            maps[0] = maps[0].detach() + 0 * self.norm.weight[:, None, None]
        return [*maps, maps[0]] if self.fault == "third" else maps


class TestPooling(EncoderContract):
    def build(self):
        return Pooling()


def test_every_registered_encoder_is_held_to_the_contract():
    registered = {component.load() for component in components("encoder") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in EncoderContract.__subclasses__()}
    assert held - {Pooling} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("reversed", "test_it_says_what_it_gives"),
        ("narrow", "test_there_is_a_feature_map_for_each_factor"),
        ("third", "test_there_is_a_feature_map_for_each_factor"),
        ("normalized", "test_images_of_a_batch_do_not_meet_in_evaluation"),
        ("blind", "test_every_map_sees_the_images"),
        ("blind", "test_every_parameter_gets_a_gradient"),
        ("counting", "test_evaluation_gives_the_same_again_and_changes_nothing"),
    ],
)
def test_the_contract_finds_an_encoder_that_is(fault, test):
    assert_found(TestPooling, test, lambda: Pooling(fault))
