"""That what is computed of a step's memory is what a step takes, and that the recipes tell it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.recipe_steps import PAPER_SIZE, RECIPES, train
from tests.tiny_priors import tiny_prior
from vltok.losses.adversarial import PatchGAN
from vltok.pictures.images import ImageBatch
from vltok.priors.dq_transformer import DQTransformer
from vltok.testing import random_codes
from vltok.tokenizers.budgets import RatioBudget
from vltok.tokenizers.decoders import VQGANDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import VQGANEncoder
from vltok.tokenizers.gates import FeatureGate
from vltok.tokenizers.quantizers import VectorQuantizer
from vltok.training import PriorTraining, TokenizerTraining

from .memory import memory, peak, told


def tokenizer_training() -> TokenizerTraining:
    sides = {"width": 32, "blocks": 1, "channels": 32}
    tokenizer = DQVAE(
        encoder=VQGANEncoder([4, 8], multipliers=[1, 1, 2, 2], attention_factors=[8], **sides),
        gate=FeatureGate(channels=32, granularities=2),
        quantizer=VectorQuantizer(size=64, dimension=16),
        decoder=VQGANDecoder(factor=4, multipliers=[1, 1, 2], attention_factors=[4], **sides),
        budget=RatioBudget({4: 0.5, 8: 0.5}),
    )
    return TokenizerTraining(tokenizer, discriminator=PatchGAN(layers=2, width=16))


def prior_training() -> PriorTraining:
    return PriorTraining(tiny_prior(DQTransformer, 256, (4, 8), (8, 8), (2, 2), width=128), attention="sdpa")


def taken(training, batch) -> int:
    """The most bytes that a step on the CPU takes, by PyTorch's own account."""
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*training.parameters(), *training.buffers()))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        train(training, batch, "cpu", half=False)
    now = most = 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return held + most


@pytest.mark.parametrize("part", ["tokenizer", "prior"])
def test_what_is_computed_is_what_a_step_takes(part):
    if part == "tokenizer":
        build, batch = tokenizer_training, ImageBatch(torch.rand(4, 3, 64, 64), None, [])
    else:
        # equally long, so that PyTorch's attention pads nothing, as that of GPUs
        build, batch = prior_training, random_codes(prior_training().prior.spec, 1)[[0] * 16]
    measured = taken(build(), batch)
    with torch.device("meta"):
        training = build()
    assert peak(training, batch, half=False) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("path", PAPER_SIZE, ids=lambda path: path.stem)
def test_the_head_of_a_recipe_tells_the_memory_of_a_step(path: Path) -> None:
    assert f"; a step of {told(path)} takes {gib(path):.1f} GiB, computed" in path.read_text(encoding="utf-8")


def test_what_a_head_tells_is_what_is_computed() -> None:
    assert memory(RECIPES / "imagenet_vqgan_f16.yaml") == pytest.approx(
        gib(RECIPES / "imagenet_vqgan_f16.yaml"), rel=0.03
    )


def gib(path: Path) -> float:
    (found,) = re.findall(r"^# .* takes (.*) GiB, computed", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return float(found)
