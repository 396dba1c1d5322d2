"""What text encoders read, and what is wrong with those of others."""

import builtins
from pathlib import Path

import pytest
import torch

from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.text_encoders import ByteEncoder, HuggingFaceEncoder

from ..tiny_priors import tiny_prior, write_bert


def test_bytes_beyond_the_longest_are_not_read() -> None:
    encoder = ByteEncoder(Transformer(8, 2, 1, 0.0), longest=3).eval()
    vectors, lengths = encoder(["abcd", "abcé", "ab", ""])
    assert lengths.tolist() == [4, 4, 3, 1]
    assert vectors[0].equal(vectors[1]) and not vectors[2, 2].equal(vectors[3, 0])
    with pytest.raises(UserError, match="longest must be at least 1"):
        ByteEncoder(Transformer(8, 2, 1, 0.0), longest=0)


def test_a_pretrained_encoder_keeps_its_weights_whatever_is_made_of_its_prior(tmp_path: Path) -> None:
    write_bert(tmp_path)
    encoder = HuggingFaceEncoder(str(tmp_path))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    prior = tiny_prior(DQTransformer, text_encoder=encoder, label_dropout=0.1)
    prior.sample(["a cat", "", "dog"], SamplingConfig(guidance=2.0, precision="bfloat16"))
    assert all(value.equal(before[name]) for name, value in encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_what_is_not_to_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r"text_encoder\.pretrained is '.*', which is not to be had"):
        HuggingFaceEncoder(str(tmp_path))
    found = builtins.__import__

    def without(name, *rest):
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'")
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"No module named 'transformers'; pip install 'vltok\[huggingface\]'"):
        HuggingFaceEncoder(str(tmp_path))


def test_of_models_with_more_parts_the_one_that_reads_texts_is_taken(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_bert(tmp_path)
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    transformers.T5Model(config).save_pretrained(tmp_path)
    encoder = HuggingFaceEncoder(str(tmp_path)).eval()
    vectors, lengths = encoder(["a cat", "a"])
    assert vectors.shape == (2, 6, 8) and lengths.tolist() == [6, 2]
