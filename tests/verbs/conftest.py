"""What tests of several verbs ask for."""

import pytest

from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import FeatureGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer


@pytest.fixture
def tokenizer() -> DQVAE:
    """A small tokenizer of two granularities, with weights as they are drawn."""
    return DQVAE(
        encoder=PatchEncoder([4, 8], width=8, blocks=1, channels=8),
        gate=FeatureGate(channels=8, granularities=2, norm_groups=4),
        quantizer=EMAVectorQuantizer(size=50, dimension=4),
        decoder=PixelShuffleDecoder(factor=4, channels=8, width=8, blocks=1),
    ).eval()
