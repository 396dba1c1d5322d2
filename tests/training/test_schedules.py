"""The learning rate's schedule, against the original implementation's numbers."""

import math

import pytest
import torch

from vltok.errors import UserError
from vltok.training.schedules import LearningRateSchedule, SchedulePlan


@pytest.mark.parametrize(
    ("name", "cosine"), [("stage1_warmup", False), ("stage1_warmup_cosine", True), ("stage2_cosine", True)]
)
def test_factors_agree_with_the_original(parity, name, cosine):
    tensors, config = parity("misc")
    end = config["max_steps"] if cosine else None
    schedule = LearningRateSchedule(config["warmup"], end, config["multiplier_min"])
    expected = tensors[f"lr.{name}"]
    found = torch.tensor([schedule(step) for step in range(len(expected))], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_it_drives_torchs_scheduler():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, LearningRateSchedule(warmup_steps=4))
    rates = []
    for _ in range(6):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]


def test_the_cosine_stays_at_its_end():
    schedule = LearningRateSchedule(warmup_steps=0, decay_end=10)
    assert schedule(0) == 1.0
    assert schedule(5) == pytest.approx(0.5)
    assert schedule(10) == schedule(25) == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_steps": 5, "warmup_epochs": 0.5}, "not both"),
        ({"warmup_steps": -1}, "negative"),
        ({"floor": 1.5}, "learning_rate_floor"),
    ],
)
def test_what_makes_no_sense_is_an_error(options, message):
    with pytest.raises(UserError, match=message):
        SchedulePlan(**options)


def test_epochs_are_counted_in_updates():
    plan = SchedulePlan("cosine", warmup_epochs=0.5, floor=0.1)
    assert plan.in_updates(100, 1, 1000) == LearningRateSchedule(50, 1000, 0.1)
    assert plan.in_updates(101, 4, 260).warmup_steps == 13
    assert SchedulePlan(warmup_epochs=0.5).in_updates(100, 1, math.inf) == LearningRateSchedule(50)
    assert SchedulePlan(warmup_steps=7).in_updates(math.inf, 1, math.inf) == LearningRateSchedule(7)


def test_unknown_lengths_are_errors():
    with pytest.raises(UserError, match=r"warmup_steps.*limit_train_batches"):
        SchedulePlan(warmup_epochs=0.5).in_updates(math.inf, 1, math.inf)
    for steps in (math.inf, -1):
        with pytest.raises(UserError, match=r"max_epochs or max_steps"):
            SchedulePlan("cosine").in_updates(100, 1, steps)


@pytest.mark.parametrize("update", [2, 4, 40])
def test_a_schedule_that_counts_other_steps_goes_on_where_it_stood(update):
    before = LearningRateSchedule(warmup_steps=4, decay_end=100, floor=0.05)
    for other in (LearningRateSchedule(4, 50, 0.05), LearningRateSchedule(8, 200, 0.05), before):
        after = other.after(before, update)
        assert after(update) == pytest.approx(before(update)) and after(update + 200) == 0.05
        assert other.after(after, update)(update) == pytest.approx(before(update))
    assert before.after(before, update).ahead == pytest.approx(0)
    constant = LearningRateSchedule(warmup_steps=8).after(LearningRateSchedule(warmup_steps=4), update)
    assert constant(update) == min(update / 4, 1)
