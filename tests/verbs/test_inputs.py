from pathlib import Path

import torch

from tests.cli.exports import write_bundle
from vltok.interfaces import Tokenizer
from vltok.tokenizers.dqvae import DQVAE
from vltok.verbs.inputs import open_tokenizer


def _packed(tokenizer: Tokenizer) -> bool:
    return any("forward" in vars(layer) for layer in tokenizer.modules())


def test_convolutions_are_packed_as_long_as_a_tokenizer_is_open(tokenizer: DQVAE, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    for given in (tokenizer, tmp_path / "bundle"):
        with open_tokenizer(given, "cpu") as opened:
            assert _packed(opened.model)
            expected = opened.model.encode(torch.zeros(1, 3, 32, 32))
        assert not _packed(opened.model)
        assert opened.model.encode(torch.zeros(1, 3, 32, 32)).ids.equal(expected.ids)
