"""That what is reckoned for many machines is reckoned from what there is."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.recipe_steps import train
from vltok.pictures.images import ImageBatch

from . import scale
from .test_memory import tokenizer_training


def test_operations_without_values_are_those_with_values() -> None:
    batch = ImageBatch(torch.rand(2, 3, 64, 64), None, [])
    # PyTorch does not count its fast kernel of attention on the CPU
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        train(tokenizer_training(), batch, "cpu", half=False, steps=1)
    with torch.device("meta"):
        training = tokenizer_training()
    assert scale.operations(training, batch) == pytest.approx(counted.get_total_flops(), rel=1e-3)


def test_the_sum_of_gradients_goes_over_the_slowest_way() -> None:
    gpu = scale.Gpu("plain", 1.0, inside=100.0, outside=10.0)
    assert scale.exchange(800.0, 1, gpu) == 0
    assert scale.exchange(800.0, 2, gpu) == 8.0
    assert scale.exchange(800.0, 8, gpu) == 14.0
    assert scale.exchange(800.0, 16, gpu) == 14.0 + 10.0


def test_the_page_tells_what_is_written_to_disk() -> None:
    page = (scale.RECIPES.parent / "tests" / "benchmarks" / "scale.md").read_text(encoding="utf-8")
    assert f"takes {scale.sample_bytes():,.0f} bytes in a tar shard" in page
    for row in scale.disk(2000):
        assert f"| {' | '.join(row)} |" in page
