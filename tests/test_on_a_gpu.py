"""What only a GPU can tell: a step of every recipe at its full size, in what was computed of its memory."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks.memory import GIB, measured, memory
from tests.recipe_steps import PAPER_SIZE, batch_of, objective, size_of, train

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("path", PAPER_SIZE, ids=lambda path: path.stem)
def test_a_step_takes_the_memory_that_was_computed(path: Path) -> None:
    computed = memory(path)
    if computed * 1.2 > torch.cuda.get_device_properties(0).total_memory / GIB:
        pytest.skip(f"a step takes {computed:.0f} GiB, more than this GPU has")
    assert measured(path) == pytest.approx(computed, rel=0.15)


@pytest.mark.parametrize("path", PAPER_SIZE, ids=lambda path: path.stem)
@pytest.mark.parametrize("half", [False, True])
def test_a_step_of_every_recipe_learns(path: Path, half: bool) -> None:
    training = objective(path, "cuda")
    before = [parameter.detach().clone() for parameter in training.trained.parameters()]
    train(training, batch_of(path, size_of(path) // 10).to("cuda"), "cuda", half)
    after = list(training.trained.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    assert sum(not old.equal(new) for old, new in zip(before, after, strict=True)) > 0.9 * len(after)
