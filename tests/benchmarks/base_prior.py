"""The priors that are measured, their counterpart in another package, and codes as images have them."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from vltok.codes import Codes, CodeSpec
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer

from .table import Setting

CODEBOOK = 1024


def dq_transformer(setting: Setting, side: int) -> DQTransformer:
    """The paper's base model on so many regions along a side: on a CPU a third of its layers, which is slow enough."""
    width, heads, position, content = (64, 4, 1, 1) if setting.tiny else (1024, 16, 2, 6)
    if setting.device == "cuda":
        position, content = 6, 18
    prior = DQTransformer(
        CodeSpec(CODEBOOK, (8, 16), (side, side)),
        position_transformer=Transformer(width, heads, position, dropout=0.0),
        content_transformer=Transformer(width, heads, content, dropout=0.0),
        dropout=0.0,
    )
    return prior.to(setting.device)


def gpt2(prior: DQTransformer) -> GPT2LMHeadModel:
    """GPT-2 with as many layers of the same width, which reads sequences as long."""
    config = GPT2Config(
        vocab_size=CODEBOOK + 2,
        n_positions=prior.ordering.longest,
        n_embd=prior.position_transformer.width,
        n_layer=layers(prior),
        n_head=prior.position_transformer.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=CODEBOOK,
        eos_token_id=None,
        pad_token_id=CODEBOOK + 1,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model.to(next(prior.parameters()).device)


def layers(prior: DQTransformer) -> int:
    """The blocks of both transformers."""
    return len(prior.position_transformer.blocks) + len(prior.content_transformer.blocks)


def told(prior: DQTransformer) -> str:
    """What a table says of a prior."""
    return f"{layers(prior)} layers of {prior.position_transformer.width}"


def codes_of_images(spec: CodeSpec, images: int, mean: float = 0.5, deviation: float = 0.15) -> Codes:
    """Images whose share of fine regions is normally distributed, as that of real ones is around its budget."""
    shares = (mean + deviation * torch.randn(images)).clamp(0, 1)
    grains = (torch.rand(images, *spec.regions) < shares[:, None, None]).long()
    lengths = torch.tensor(spec.codes_per_region)[grains].sum((1, 2))
    return Codes(torch.randint(spec.codebook_size, (int(lengths.sum()),)), lengths, grains)
