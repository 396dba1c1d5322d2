"""Every registered text encoder holds the contract, and the contract finds what is broken."""

from pathlib import Path

import pytest
import torch

from vltok.priors.text_encoders import HuggingFaceEncoder
from vltok.testing import TextEncoderContract

from ..tiny_priors import tiny_text_encoder, write_bert

pytestmark = pytest.mark.usefixtures("unchecked")


class TestByteEncoder(TextEncoderContract):
    def build(self):
        return tiny_text_encoder()


class TestHuggingFaceEncoder(TextEncoderContract):
    read_backs = None  # it looks at masks itself

    @pytest.fixture(autouse=True)
    def written(self, tmp_path: Path) -> None:
        write_bert(tmp_path)
        self.folder = tmp_path

    def build(self):
        return HuggingFaceEncoder(str(self.folder), longest=6)


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("mixes", "test_texts_do_not_meet"),
        ("forgets", "test_texts_differ"),
        ("no length", "test_each_text_gets_a_row_of_vectors"),
        ("cut", "test_what_is_trained_gets_a_gradient"),
    ],
)
def test_what_is_broken_is_found(fault: str, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(TextEncoderContract):
        def build(self):
            encoder = tiny_text_encoder()
            forward = encoder.forward

            def wrong(texts):
                vectors, lengths = forward(texts)
                return {
                    "mixes": (vectors + vectors.mean(0), lengths),
                    "forgets": (torch.ones_like(vectors), lengths),
                    "no length": (vectors, lengths - 1),
                    "cut": (vectors.detach(), lengths),
                }[fault]

            monkeypatch.setattr(encoder, "forward", wrong)
            return encoder

    with pytest.raises(AssertionError):
        getattr(Broken(), test)()
