"""Texts beside codes: in the model's own tokens, in both directions, and told honestly."""

import shutil
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import vltok
from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.testing import random_codes
from vltok_causal_lm import CausalLM, Texts
from vltok_causal_lm.exporter import Transformers

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
GRID, NO_GRID = CodeSpec(13, (2, 1), (1, 2)), CodeSpec(13, max_length=6)
WORDS = ("a", "cat", "dog", "red", "green", "[UNK]")


def build(spec: CodeSpec = NO_GRID, **changes) -> CausalLM:
    return CausalLM(spec, **{"architecture": "llama", "options": SMALL, "texts": Texts(longest=8), **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained model of text with its tokenizer, on disk; the model has more rows than there are words."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("pretrained")
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=9, **SMALL)).save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(path)
    return path


def test_a_likelihood_is_that_of_codes_given_the_text():
    prior = build(texts=Texts(longest=8, captions=1.0)).eval()
    codes = replace(random_codes(prior.spec, 3), texts=("ab", "", "a far longer text"))
    loss = prior.loss(codes)
    expected = torch.tensor(0.0)
    for image, text, start in zip(codes, (b"ab", b"", b"a far lo"), (0, 1, 0), strict=True):
        ids = image.ids.tolist()
        read = torch.tensor([[*text, 256 + 13 + 1 + start, *(256 + code for code in ids)]])
        logits = prior.model(input_ids=read).logits[0, len(text) :, 256:].log_softmax(1)
        for step, token in enumerate([*ids, 13]):
            legal = [*range(13)] * (step < 6) + [13] * (step >= 1)
            expected = expected - logits[step, token] + logits[step, legal].logsumexp(0)
    found = sum(part * loss.counts[name] for name, part in loss.parts.items())
    assert loss.likelihood and set(loss.parts) == {"structure", "content"}
    assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_the_mix_is_what_was_asked_for_and_a_training_loss_with_captions_is_no_likelihood():
    codes = replace(random_codes(NO_GRID, 400), texts=("ab",) * 399 + ("",))
    for share, dropout in ((0.0, 0.0), (0.25, 0.0), (1.0, 0.0), (0.5, 0.5)):
        prior = build(texts=Texts(longest=8, captions=share), label_dropout=dropout).train()
        loss = prior.loss(codes)
        assert loss.likelihood == (share == 0.0)
        words = 3 * 400 * share * (1 - dropout)  # two bytes and an end
        assert loss.counts.get("caption", 0) == pytest.approx(words, rel=0.3)
        assert loss.counts["structure"] == pytest.approx(max(400 * (1 - share * (1 - dropout)), 1), rel=0.2)
        if share:
            total = sum(loss.parts[name] * loss.counts[name] for name in loss.parts)
            assert_close(loss.total.detach(), total / loss.weight)


@pytest.mark.parametrize(("spec", "architecture"), [(GRID, "llama"), (NO_GRID, "gpt2")])
def test_one_model_draws_what_a_text_says_and_says_what_it_sees(spec, architecture):
    texts = ("a cat", "dog", "red", "\N{CAT FACE}")
    options = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    prior = build(spec, architecture=architecture, options=options, texts=Texts(longest=8, captions=0.5)).train()
    codes = replace(random_codes(spec, 4), texts=texts)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        prior.loss(codes).total.backward()
        optimizer.step()
    assert prior.captions(replace(codes, texts=None)) == texts and prior.training
    drawn = prior.sample(texts * 2, SamplingConfig(), torch.Generator().manual_seed(0), batch_size=3)
    assert sum(one.equal(other) for one, other in zip(drawn, [*codes] * 2, strict=True)) >= 6


def test_a_pretrained_model_keeps_its_words_and_its_bundle_needs_nothing_else(folder, tmp_path):
    text, copy = AutoModelForCausalLM.from_pretrained(folder), tmp_path / "text"
    shutil.copytree(folder, copy)
    prior = build(GRID, architecture=None, options=None, pretrained=str(copy), label_dropout=0.1).eval()
    assert prior.first_code == len(WORDS)
    assert prior.text_tokens.padded(["a red cat", "x"], torch.device("cpu")).tolist() == [[0, 3, 1], [5, -1, -1]]
    rows = prior.model.get_input_embeddings().weight
    assert rows.shape == (6 + 13 + 2 + 2 + 1, 16)
    assert rows[:6].equal(text.get_input_embeddings().weight[:6])
    assert not torch.isclose(rows[6:, None], text.get_input_embeddings().weight).all(2).any()
    vltok.save_prior(prior, tmp_path / "bundle", "0123456789abcdef" * 4)
    shutil.rmtree(copy)
    again = vltok.load_prior(tmp_path / "bundle", trust=True).eval()
    codes = replace(random_codes(prior.spec, 3), texts=("a red cat", "", "dog"))
    assert_close(again.loss(codes).total, prior.loss(codes).total)
    assert again.captions(codes) == prior.captions(codes) and len(again.captions(codes)) == 3
    guided = again.sample(["a red cat", ""], SamplingConfig(guidance=2.0), torch.Generator().manual_seed(0))
    assert guided.validate(prior.spec).texts == ("a red cat", "")


def test_what_cannot_be_is_refused(tmp_path):
    for arguments, message in (
        ({"longest": 0}, r"texts\.longest must be at least 1"),
        ({"captions": 1.5}, r"texts\.captions must lie in \[0, 1\], not 1\.5"),
    ):
        with pytest.raises(UserError, match=message):
            Texts(**arguments)
    with pytest.raises(UserError, match=r"texts\.tokenizer is no tokenizer"):
        build(texts=Texts(tokenizer="{"))
    with pytest.raises(UserError, match="classes is 3"):
        build(classes=3)
    for prior in (build(texts=None), build(texts=Texts(captions=0.0))):
        with pytest.raises(UserError, match="writes no captions"):
            prior.captions(random_codes(NO_GRID, 1))
    with pytest.raises(UserError, match="cannot be exported to transformers"):
        Transformers().write(build(), {}, tmp_path)
    with pytest.raises(UserError, match="reads up to 10 tokens, but the longest sequence of these codes has 16"):
        build(options={**SMALL, "max_position_embeddings": 10})


def test_it_reads_no_embeddings_and_says_what_it_reads() -> None:
    with pytest.raises(UserError, match="this prior reads no embeddings: ask for texts"):
        build().sample(torch.zeros(1, 3), SamplingConfig())
    with pytest.raises(UserError, match="this prior reads no embeddings: ask for a number of images"):
        build(texts=None).sample(torch.zeros(1, 3), SamplingConfig())
