"""Architectures, pretrained weights, adapters."""

import sys

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertModel

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.testing import random_codes
from vltok_causal_lm import CausalLM, LoRA
from vltok_causal_lm.language_models import require_causal

SPEC = {"spec": CodeSpec(13, (2, 1), (2, 2))}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
OPTIONS = {
    "llama": SMALL,
    "gpt2": {"n_embd": 16, "n_layer": 1, "num_attention_heads": 2},  # by its own name, and by the one of others
    "gpt_neox": SMALL,
    "opt": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32},
    "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
    "mixtral": {**SMALL, "num_key_value_heads": 1, "num_local_experts": 2},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
    "bert": SMALL,  # an encoder, told to look back alone
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained model of text, on disk."""
    torch.manual_seed(0)
    options = {**SMALL, "num_key_value_heads": 1, "rms_norm_eps": 1e-3, "tie_word_embeddings": True}
    config = AutoConfig.for_model("llama", vocab_size=50, max_position_embeddings=40, eos_token_id=7, **options)
    path = tmp_path_factory.mktemp("pretrained")
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("architecture", OPTIONS)
def test_any_architecture_learns_and_draws(architecture):
    prior = CausalLM(**SPEC, architecture=architecture, options=OPTIONS[architecture]).eval()
    codes = random_codes(prior.spec, 4)
    loss = prior.loss(codes)
    loss.total.backward()
    apart = torch.stack([prior.loss(image).total * image.ids.numel() for image in codes]).sum() / codes.ids.numel()
    assert_close(loss.total, apart, rtol=1e-4, atol=1e-4)
    assert prior.sample(3, SamplingConfig(), torch.Generator().manual_seed(0)).validate(prior.spec)


def test_a_model_that_looks_ahead_is_refused():
    with pytest.raises(UserError, match="xlnet looks at tokens that it has to predict"):
        CausalLM(**SPEC, architecture="xlnet", options={"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16})
    with torch.device("meta"):
        CausalLM(**SPEC, architecture="llama", options=SMALL)


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("lama", {}, "no architecture of a causal language model is called 'lama'.* did you mean 'llama'"),
        ("llama", {"hiden_size": 8}, "no option of llama is called 'hiden_size'.* did you mean 'hidden_size'"),
        ("llama", {"vocab_size": 8}, "vocab_size follows from the codes: leave it out"),
        ("gpt2", {"bos_token_id": 8}, "bos_token_id follows from the codes: leave it out"),
        ("llama", {"hidden_size": 15, "num_attention_heads": 2}, "no llama can be built: .*15"),
        ("llama", {"hidden_size": "wide"}, "no llama can be built: .*wide"),
        ("gpt2", {**OPTIONS["gpt2"], "n_positions": 19}, "reads up to 19 tokens, but the longest .* has 20"),
    ],
)
def test_models_that_cannot_be_are_refused_in_one_line(architecture, options, message):
    with pytest.raises(UserError, match=message) as raised:
        CausalLM(**SPEC, architecture=architecture, options=options)
    assert "\n" not in str(raised.value)


def test_a_model_may_read_just_the_longest_sequence():
    CausalLM(**SPEC, architecture="gpt2", options={**OPTIONS["gpt2"], "n_positions": 20}).sample(
        2, SamplingConfig(codes=16)
    )


def test_pretrained_weights_are_used_and_the_vocabulary_is_not(folder):
    prior, text = CausalLM(**SPEC, pretrained=str(folder)), AutoModelForCausalLM.from_pretrained(folder)
    ours, theirs = dict(prior.model.named_parameters()), dict(text.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        if "embed_tokens" in name:
            assert parameter.shape == (16, 16)  # 13 codes, 2 granularities, 1 start
            assert not torch.isclose(parameter[:, None], theirs[name]).all(2).any()
            assert 0.5 < parameter.std() / theirs[name].std() < 2
        else:
            assert_close(parameter, theirs[name])
    assert prior.model.get_output_embeddings().weight is prior.model.get_input_embeddings().weight
    assert prior.sample(3, SamplingConfig()).validate(prior.spec)


def test_standalone_arguments_need_no_folder(folder):
    prior = CausalLM(**SPEC, pretrained=str(folder), options={"attention_dropout": 0.25}).eval()
    arguments = prior.standalone_arguments
    assert arguments["architecture"] == "llama" and arguments["pretrained"] is None
    assert arguments["options"]["attention_dropout"] == 0.25 and arguments["options"]["num_key_value_heads"] == 1
    again = CausalLM(**SPEC, **arguments).eval()
    again.load_state_dict(prior.state_dict())
    codes = random_codes(prior.spec, 4)
    assert_close(again.loss(codes).total, prior.loss(codes).total)
    assert again.standalone_arguments == arguments


def test_pretrained_models_that_are_not_to_be_had_are_refused_in_one_line(folder, tmp_path):
    def refused(name: str, message: str, **changes) -> None:
        with pytest.raises(UserError, match=message) as raised:
            CausalLM(**{**SPEC, **changes}, pretrained=name)
        assert "\n" not in str(raised.value)

    refused(str(tmp_path / "nowhere"), "pretrained is '.*nowhere', whose configuration is not to be had")
    refused(
        str(folder),
        "reads up to 40 tokens, but the longest sequence of these codes has 45",
        spec=CodeSpec(13, (2, 1), (3, 3)),
    )
    refused(str(folder), "no option of llama is called 'width'", options={"width": 3})
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.save_pretrained(tmp_path / "pickle")
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    refused(str(tmp_path / "pickle"), "of which no model can be built: .*safetensors")
    BertModel(BertConfig(vocab_size=20, max_position_embeddings=32, **SMALL)).save_pretrained(tmp_path / "encoder")
    refused(str(tmp_path / "encoder"), "lacks . weights of a bert language model, such as cls")


@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"]])
def test_adapters_and_embeddings_learn_alone(folder, targets):
    prior = CausalLM(**SPEC, pretrained=str(folder), lora=LoRA(rank=2, targets=targets)).train()
    names = {name for name, parameter in prior.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "embed_tokens" in name for name in names)
    assert any("embed_tokens" in name for name in names)
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in names if "lora_" in name}
    every = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert adapted == (every if targets is None else set(targets))
    before = {name: parameter.detach().clone() for name, parameter in prior.named_parameters()}
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2, weight_decay=0.1)
    codes = random_codes(prior.spec, 4)
    first = prior.loss(codes).total.detach()
    for _ in range(20):
        optimizer.zero_grad()
        prior.loss(codes).total.backward()
        optimizer.step()
    changed = {name for name, parameter in prior.named_parameters() if not parameter.equal(before[name])}
    assert changed == names
    assert prior.loss(codes).total < first
    assert prior.sample(3, SamplingConfig()).validate(prior.spec)


def test_adapters_come_back_without_the_folder(folder):
    lora = LoRA(rank=2)
    prior = CausalLM(**SPEC, pretrained=str(folder), lora=lora).eval()
    again = CausalLM(**SPEC, **prior.standalone_arguments, lora=lora).eval()
    again.load_state_dict(prior.state_dict())
    codes = random_codes(prior.spec, 4)
    assert_close(again.loss(codes).total, prior.loss(codes).total)


def test_an_adapter_that_cannot_be_is_refused(folder, monkeypatch):
    for arguments, message in (
        ({"rank": 0}, r"lora\.rank must be at least 1, not 0"),
        ({"alpha": 0.0}, r"lora\.alpha must be positive"),
        ({"dropout": 1.0}, r"lora\.dropout must lie in \[0, 1\)"),
    ):
        with pytest.raises(UserError, match=message):
            LoRA(**arguments)
    with pytest.raises(UserError, match=r"lora\.targets is \['query'\]: "):
        CausalLM(**SPEC, pretrained=str(folder), lora=LoRA(targets=["query"]))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"lora needs peft: pip install 'vltok-causal-lm\[lora\]'"):
        CausalLM(**SPEC, pretrained=str(folder), lora=LoRA())


def test_what_is_asked_of_a_model_leaves_its_mode():
    model = CausalLM(**SPEC, architecture="llama", options=SMALL).model.train()
    model.model.layers[0].eval()
    require_causal(model)
    assert model.training and not model.model.layers[0].training
