"""What the contract leaves to the prior itself."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.testing import random_codes
from vltok_causal_lm import CausalLM

LLAMA = {
    "architecture": "llama",
    "options": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
}
GPT2 = {"architecture": "gpt2", "options": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}}
GRID = {"spec": CodeSpec(13, (4, 2, 1), (2, 2))}
NO_GRID = {"spec": CodeSpec(13, max_length=12)}
KINDS = list(itertools.product((LLAMA, GPT2), (GRID, NO_GRID)))


def lively(prior: CausalLM) -> CausalLM:
    """Weights that make a distribution far from uniform."""
    with torch.no_grad():
        for parameter in prior.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    return prior.eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recorded(prior: CausalLM, images: int) -> tuple[Codes, torch.Tensor]:
    """What is drawn, and the logits of every step, `[b t v]`."""
    said = []
    hook = prior.model.register_forward_hook(lambda _, __, output: said.append(output.logits[:, -1]))
    codes = prior.sample(images, SamplingConfig(), seeded())
    hook.remove()
    return codes, torch.stack(said, dim=1)


@pytest.mark.parametrize(("model", "spec"), KINDS)
@torch.no_grad()
def test_cached_logits_equal_those_of_the_whole_model(model, spec):
    prior = lively(CausalLM(**spec, **model))
    codes, said = recorded(prior, 6)
    for image, logits in zip(codes, said, strict=True):
        predicted = prior(image)
        logits = logits[: len(predicted.tokens)]
        assert_close(logits[:, :13], predicted.contents, rtol=1e-4, atol=1e-4)
        choices = prior.serialization.choice_logits(logits)
        assert_close(choices.where(predicted.choices.isfinite(), -torch.inf), predicted.choices, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("model", "spec"), KINDS)
def test_drawing_reads_the_cache_and_not_everything_again(model, spec):
    prior, widths = lively(CausalLM(**spec, **model)), set()
    hook = prior.model.get_input_embeddings().register_forward_hook(lambda _, read, __: widths.add(read[0].shape[1]))
    prior.sample(2, SamplingConfig(), seeded())
    hook.remove()
    assert widths == {1}


@pytest.mark.parametrize(("model", "spec"), KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_every_draw_is_legal_whatever_the_weights_say(model, spec, seed):
    prior = lively(CausalLM(**spec, **model))
    for sampling in (
        SamplingConfig(),
        SamplingConfig(temperature=30.0, position_temperature=30.0),
        SamplingConfig(top_p=0.2),
    ):
        assert len(prior.sample(60, sampling, seeded(seed)).validate(prior.spec)) == 60


class Hostile(nn.Module):
    """In place of a head: each row is hostile in its own way."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(*hidden.shape[:-1], self.size)
        one = torch.zeros_like(noise, dtype=torch.bool).scatter(-1, noise.argmax(-1, keepdim=True), True)
        ways = [
            3e38 * noise,
            torch.full_like(noise, torch.inf),
            torch.full_like(noise, -torch.inf),
            1e4 * one,
            torch.zeros_like(noise).masked_fill(~one, -torch.inf),
            noise.sign() * torch.inf,
        ]
        rows = torch.arange(len(noise))
        return torch.stack(ways)[rows % len(ways), rows]


@pytest.mark.parametrize(("model", "spec"), KINDS)
def test_hostile_logits_give_legal_draws(model, spec):
    prior = CausalLM(**spec, **model, classes=2, label_dropout=0.1).eval()
    prior.model.set_output_embeddings(Hostile(prior.model.get_output_embeddings().out_features))
    for options in (
        {},
        {"codes": 10},
        {"max_codes": 7, "top_k": 1, "position_top_k": 1},
        {"temperature": 1e-300, "position_temperature": 1e-45},
        {"temperature": 1e300, "top_p": 1e-50, "guidance": 1e38},
        {"guidance": -3.0, "precision": "bfloat16"},
    ):
        codes = prior.sample(torch.arange(30) % 2, SamplingConfig(**options), seeded()).validate(prior.spec)
        assert codes.lengths.max() <= options.get("max_codes", codes.lengths.max())
        assert codes.lengths.eq(options.get("codes", codes.lengths)).all()


@pytest.mark.parametrize(("model", "spec"), KINDS)
def test_logits_that_are_no_numbers_end_the_draw_in_one_line(model, spec):
    prior = CausalLM(**spec, **model)
    with torch.no_grad():
        prior.model.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(UserError, match="logits are no numbers"):
        prior.sample(2, SamplingConfig())


def test_a_likelihood_is_that_of_a_softmax_over_legal_tokens():
    prior = lively(CausalLM(**NO_GRID, **LLAMA))
    codes = random_codes(prior.spec, 5)
    loss = prior.loss(codes)
    found = sum(part * loss.counts[name] for name, part in loss.parts.items())
    expected = torch.tensor(0.0)
    for image in codes:
        ids = image.ids.tolist()
        read = torch.tensor([[prior.first_start, *ids]])
        logits = prior.model(input_ids=read).logits[0, :, :14].log_softmax(1)
        for step, token in enumerate([*ids, 13]):
            legal = [*range(13)] * (step < 12) + [13] * (step >= 1)
            expected = expected - logits[step, token] + logits[step, legal].logsumexp(0)
    assert_close(found, expected.detach(), rtol=1e-5, atol=1e-4)
    assert loss.counts["structure"] == 5 and loss.counts["content"] == codes.ids.numel()


def test_structure_on_a_grid_is_a_granularity_a_region():
    prior = CausalLM(**GRID, **LLAMA).eval()
    loss = prior.loss(random_codes(prior.spec, 3))
    assert loss.counts["structure"] == 3 * 4
    # untrained it is a fair choice among three
    assert_close(loss.parts["structure"], torch.tensor(3.0).log(), rtol=0.05, atol=0)


def test_lengths_are_met_exactly():
    prior = lively(CausalLM(**GRID, **LLAMA))
    for codes in (4, 10, 19, 64):
        assert prior.sample(8, SamplingConfig(codes=codes), seeded()).lengths.tolist() == [codes] * 8
    assert prior.sample(32, SamplingConfig(max_codes=11), seeded()).lengths.max() <= 11
    drawn = prior.sample(8, SamplingConfig(ratios={4: 0.5, 2: 0.25, 1: 0.25}), seeded())
    assert [grains.flatten().bincount(minlength=3).tolist() for grains in drawn.grains] == [[2, 1, 1]] * 8
    prior = lively(CausalLM(**NO_GRID, **LLAMA))
    assert prior.sample(8, SamplingConfig(codes=7), seeded()).lengths.tolist() == [7] * 8
    assert prior.sample(32, SamplingConfig(max_codes=3), seeded()).lengths.max() <= 3
    assert prior.sample(2, SamplingConfig(max_codes=99), seeded()).lengths.max() <= 12


def test_top_k_is_of_codes_and_position_top_k_of_structure():
    prior = lively(CausalLM(**GRID, **LLAMA))
    structures = prior.sample(20, SamplingConfig(position_top_k=1), seeded())
    assert (structures.grains[:, 0, 0] == structures.grains[0, 0, 0]).all()
    assert structures.ids.unique().numel() > 5
    both = prior.sample(5, SamplingConfig(position_top_k=1, top_k=1), seeded())
    assert all(image.equal(both[0]) for image in both)
    cold = prior.sample(5, SamplingConfig(position_temperature=1e-4, temperature=1e-4), seeded())
    assert cold.equal(both)
    narrow = prior.sample(5, SamplingConfig(position_top_p=1e-6, top_p=1e-6), seeded())
    assert narrow.equal(both)


def test_sixteen_images_are_learned_to_a_loss_near_zero():
    prior = CausalLM(CodeSpec(13, (2, 1), (2, 2)), classes=16, **LLAMA).train()
    codes = random_codes(prior.spec, 16, classes=16)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        loss = prior.loss(codes)
        loss.total.backward()
        optimizer.step()
    assert loss.total < 0.2
    drawn = prior.sample(codes.labels, SamplingConfig(), seeded())
    assert sum(ours.equal(theirs) for ours, theirs in zip(drawn, codes, strict=True)) >= 8


def test_checkpointing_changes_nothing_but_memory():
    losses, gradients = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        prior = CausalLM(**GRID, **LLAMA, checkpointing=checkpointing).train()
        loss = prior.loss(random_codes(prior.spec, 3)).total
        loss.backward()
        losses.append(loss.detach())
        gradients.append(prior.model.get_input_embeddings().weight.grad)
    assert prior.model.is_gradient_checkpointing
    assert_close(*losses)
    assert_close(*gradients)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": "gpt2"}, "architecture is llama and pretrained is gpt2: give one of them"),
        ({"architecture": None}, "architecture is None and pretrained is None: give one of them"),
        ({"spec": CodeSpec(13, (4, 2, 1))}, "regions is missing"),
        ({"label_dropout": 0.1}, "label_dropout"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        CausalLM(**{**GRID, **LLAMA, **changes})


def test_positions_are_not_filled_in():
    with pytest.raises(UserError, match="positions is implied, but CausalLM has no such option"):
        CausalLM(**GRID, **LLAMA).sample(1, SamplingConfig(positions="implied"))
