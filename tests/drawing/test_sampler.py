"""What a sampler keeps between its calls."""

import copy

import pytest
import torch

from tests.tiny_priors import tiny_prior
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.stepwise import in_precision


def test_a_sampler_copies_the_matrices_once_and_shares_the_rest(monkeypatch):
    prior, copies, deepcopy = tiny_prior(DQTransformer), [], copy.deepcopy
    monkeypatch.setattr(copy, "deepcopy", lambda *given: copies.append(1) or deepcopy(*given))
    sampler = prior.sampler(SamplingConfig(precision="bfloat16"))
    for seed in range(3):
        codes = sampler(2, torch.Generator().manual_seed(seed), first_image=seed)
        expected = prior.sample(
            2, SamplingConfig(precision="bfloat16"), torch.Generator().manual_seed(seed), first_image=seed
        )
        assert codes.equal(expected)
    assert len(copies) == 1 + 3
    drawn_from = sampler.drawing.steps.prior
    assert drawn_from.content_embedding.weight is prior.content_embedding.weight
    for model, dtype in ((drawn_from, torch.bfloat16), (prior, torch.float32)):
        assert model.content_transformer.blocks[0].feedforward_in.weight.dtype == dtype


def test_where_nothing_changes_nothing_is_copied(monkeypatch):
    monkeypatch.setattr("vltok.priors.stepwise.packs", lambda dtype: False)
    prior = tiny_prior(DQTransformer)
    assert in_precision(prior, "float32") is prior
    assert in_precision(prior, "bfloat16") is not prior


def test_weights_of_half_precision_are_widened_but_for_matrices():
    prior = in_precision(tiny_prior(DQTransformer).to(torch.bfloat16), "bfloat16")
    assert prior.content_embedding.weight.dtype == prior.content_head.norm.weight.dtype == torch.float32
    assert prior.content_head.linear.weight.dtype == torch.bfloat16


def test_a_sampler_begins_anew_in_every_call():
    """Inference mode leaves no tensors behind, and a draw that failed no error."""
    prior = tiny_prior(DQTransformer)
    sampler = prior.sampler(SamplingConfig())
    expected = sampler(2, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert sampler(2, torch.Generator().manual_seed(0)).equal(expected)
    norm = sampler.drawing.steps.prior.content_head.norm
    bias = norm.bias.detach().clone()
    torch.nn.init.constant_(norm.bias, torch.nan)
    with pytest.raises(UserError, match="no numbers"):
        sampler(2)
    norm.bias.data = bias
    assert sampler(2, torch.Generator().manual_seed(0)).equal(expected)
