"""What tests of several verbs ask for."""

from pathlib import Path

import pytest

from tests.cli.exports import PRIOR, write_bundle, write_prior
from vltok.io.bundles import fingerprint
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


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer's bundle and one of a prior of its codes."""
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "tokenizer")
    write_prior(folder / "prior", PRIOR, fingerprint(folder / "tokenizer"))
    return folder
