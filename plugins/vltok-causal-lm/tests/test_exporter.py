"""Bundles as models of transformers, loaded and drawn from by the real package."""

import itertools
import json

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, LogitsProcessorList

import vltok
from vltok.cli.main import main
from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.testing import ExporterContract, random_codes
from vltok_causal_lm import CausalLM, LegalTokens, LoRA, TokenMap
from vltok_causal_lm.exporter import Transformers

LLAMA = {
    "architecture": "llama",
    "options": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
}
GPT2 = {"architecture": "gpt2", "options": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}}
GRID = {"spec": CodeSpec(13, (4, 2, 1), (2, 2))}
NO_GRID = {"spec": CodeSpec(13, max_length=12)}
FINGERPRINT = "0123456789abcdef" * 4


def lively(prior: CausalLM) -> CausalLM:
    """Weights that make a distribution far from uniform, in adapters too."""
    with torch.no_grad():
        for parameter in prior.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    return prior.eval()


def exported(prior: CausalLM, folder) -> tuple:
    """What the command writes of a prior, as transformers and the plug-in read it."""
    vltok.save_prior(prior, folder / "bundle", FINGERPRINT)
    assert main(["export", str(folder / "bundle"), str(folder / "out"), "--to", "transformers"]) == 0
    return AutoModelForCausalLM.from_pretrained(folder / "out").eval(), TokenMap.from_pretrained(folder / "out")


class TestTransformers(ExporterContract):
    def build(self):
        return Transformers()

    def example(self):
        torch.manual_seed(0)
        return CausalLM(**GRID, **LLAMA)


@pytest.mark.parametrize(("arguments", "spec"), list(itertools.product((LLAMA, GPT2), (GRID, NO_GRID))))
@torch.no_grad()
def test_transformers_loads_it_with_equal_logits(arguments, spec, tmp_path):
    prior = lively(CausalLM(**spec, **arguments))
    model, tokens = exported(prior, tmp_path)
    assert type(model) is type(prior.model) and tokens.vocabulary == model.config.vocab_size
    sequences = prior.serialization(random_codes(prior.spec, 4)).tokens
    read = torch.cat([torch.full((4, 1), tokens.start()), sequences], dim=1)
    assert_close(model(read).logits, prior.model(read).logits)


@pytest.mark.parametrize("spec", [GRID, NO_GRID])
@torch.no_grad()
def test_what_generate_draws_is_legal_and_as_likely_as_the_prior_says(spec, tmp_path):
    prior = lively(CausalLM(**spec, **LLAMA, classes=3, label_dropout=0.1))
    model, tokens = exported(prior, tmp_path)
    starts = torch.tensor([[tokens.start(label)] for label in (0, 1, 2, None)]).repeat(4, 1)
    legal = LogitsProcessorList([LegalTokens(tokens)])
    drawn = model.generate(starts, attention_mask=torch.ones_like(starts), logits_processor=legal)
    codes = tokens.codes(drawn)
    assert len(codes) == 16 and codes.lengths.unique().numel() > 1
    # greedy: the likeliest token by hand, step by step
    likeliest = model.generate(
        starts[:1], attention_mask=torch.ones_like(starts[:1]), do_sample=False, logits_processor=legal
    )
    row = starts[:1]
    while row[0, -1] != tokens.last or row.shape[1] == 1:
        logits = prior.model(row).logits[:, -1].masked_fill(~tokens.legal(row), -torch.inf)
        row = torch.cat([row, logits.argmax(1, keepdim=True)], dim=1)
    assert likeliest.equal(row) and row.shape[1] <= 1 + tokens.most


@torch.no_grad()
def test_adapters_are_merged_and_the_prior_keeps_its_own(tmp_path):
    text = CausalLM(**GRID, **LLAMA).model
    text.save_pretrained(tmp_path / "text")
    prior = lively(CausalLM(**GRID, pretrained=str(tmp_path / "text"), lora=LoRA(rank=2)))
    model, tokens = exported(prior, tmp_path)
    assert not any("lora" in name for name in model.state_dict()) and "lora_A" in str(prior.model)
    read = torch.tensor([[tokens.start(), 13, 4]])
    assert_close(model(read).logits, prior.model(read).logits, rtol=1e-4, atol=1e-4)


def test_the_map_says_what_tokens_mean(tmp_path):
    _, tokens = exported(CausalLM(**GRID, **LLAMA, classes=3), tmp_path)
    told = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert told == {
        "codes": {"first": 0, "count": 13},
        "structure": [
            {"token": 13, "factor": 4, "codes": 1},
            {"token": 14, "factor": 2, "codes": 4},
            {"token": 15, "factor": 1, "codes": 16},
        ],
        "starts": {"first": 16, "classes": 3, "without_class": None},
        "factors": [4, 2, 1],
        "regions": [2, 2],
        "max_length": None,
        "tokenizer": FINGERPRINT,
    }
    assert tokens.start(2) == 18
    for label in (None, 3, -1):
        with pytest.raises(UserError, match=f"label is {label}, but the model knows the classes 0 to 2"):
            tokens.start(label)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"], generation["do_sample"]) == (16, 16, True)


def test_what_is_no_export_or_no_whole_image_is_one_line(tmp_path, capsys):
    with pytest.raises(UserError, match="is no model that 'vltok export' wrote"):
        TokenMap.from_pretrained(tmp_path)
    for text in ("{", "[]", '{"codes": 3}', '{"codes": {"count": 3}, "factors": [2, 1], "regions": [1]}'):
        (tmp_path / "tokens.json").write_text(text)
        with pytest.raises(UserError, match=r"tokens\.json' is damaged"):
            TokenMap.from_pretrained(tmp_path)
    _, tokens = exported(CausalLM(**NO_GRID, **LLAMA), tmp_path)
    with pytest.raises(UserError, match="sequence 1 is not complete: draw up to 13 tokens"):
        tokens.codes(torch.tensor([[3, 13], [3, 4]]))
    assert main(["export", str(tmp_path / "bundle"), str(tmp_path / "other"), "--to", "diffusers"]) == 1
    assert "holds a prior, not a tokenizer" in capsys.readouterr().err
