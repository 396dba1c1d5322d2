"""Every registered decoder holds the contract, and the contract finds what is broken."""

import pytest
import torch
from torch import Tensor, nn

from vltok.interfaces import Decoder
from vltok.registry import components
from vltok.testing import DecoderContract
from vltok.tokenizers.decoders import PixelShuffleDecoder, PositionalDecoder, VQGANDecoder

from .broken import assert_found


class TestVQGANDecoder(DecoderContract):
    def build(self):
        return VQGANDecoder(4, width=64, multipliers=[1, 1, 2], blocks=1, attention_factors=[4], channels=6)


class TestPixelShuffleDecoder(DecoderContract):
    def build(self):
        return PixelShuffleDecoder(3, channels=6, width=64, blocks=1)


class TestPositionalDecoder(DecoderContract):
    def build(self):
        return PositionalDecoder(PixelShuffleDecoder(4, channels=6, width=64, blocks=1), grid=4)


class Flat(Decoder):
    """Paints each cell in one color.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.color = nn.Linear(5, 3)
        self.other = nn.Linear(5, 3)

    @property
    def channels(self) -> int:
        return 5

    @property
    def factor(self) -> int:
        return 2

    @property
    def last_layer(self) -> Tensor:
        return self.other.weight if self.fault == "mistaken" else self.color.weight

    def forward(self, vectors: Tensor) -> Tensor:
        if self.fault == "mixing":
            vectors = vectors - vectors.mean()
        if self.fault == "short":
            vectors = torch.cat([vectors[:, :, :-1], 0 * vectors[:, :, -1:]], dim=2)
        colors = self.color(vectors.movedim(1, -1)).movedim(-1, 1)
        if self.fault not in ("idle", "mistaken"):
            colors = colors + self.other(vectors.movedim(1, -1)).movedim(-1, 1)
        if self.fault == "noisy":
            colors = colors + torch.randn_like(colors)
        sides = 3 if self.fault == "large" else 2
        return colors.repeat_interleave(sides, 2).repeat_interleave(sides, 3)


class TestFlat(DecoderContract):
    def build(self):
        return Flat()


def test_every_registered_decoder_is_held_to_the_contract():
    registered = {component.load() for component in components("decoder") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in DecoderContract.__subclasses__()}
    assert held - {Flat} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("large", "test_each_cell_becomes_its_pixels"),
        ("mixing", "test_images_of_a_batch_do_not_meet_in_evaluation"),
        ("short", "test_every_vector_is_seen"),
        ("mistaken", "test_the_last_layer_gives_the_pixels"),
        ("idle", "test_every_parameter_gets_a_gradient"),
        ("noisy", "test_evaluation_gives_the_same_again_and_changes_nothing"),
    ],
)
def test_the_contract_finds_a_decoder_that_is(fault, test):
    assert_found(TestFlat, test, lambda: Flat(fault))
