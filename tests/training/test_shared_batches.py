"""Two processes that share a batch train as one that has it all, however unequal their shares."""

from collections.abc import Iterator

import pytest
import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from vltok.registry import components
from vltok.tokenizers.gain_gate import GainGate

from .shared_batches import (
    BUDGETS,
    CASES,
    FITTED,
    GATES,
    QUANTIZERS,
    as_if_by_a_trainer,
    fit,
    one_of_two,
    train,
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What two processes came to."""
    folder = tmp_path_factory.mktemp("shared")
    torch.multiprocessing.spawn(one_of_two, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(found: list[dict], case: str) -> None:
    whole = train(CASES[case])
    assert any(value.any() for name, value in whole.items() if name.startswith("gradient"))
    for shared in found:
        assert shared[case].keys() == whole.keys()
        torch.testing.assert_close(shared[case], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", FITTED)
def test_lightning_trains_and_validates_them_as_one(found: list[dict], case: str) -> None:
    whole = fit(CASES[case])
    if case == "discriminator":  # losses that are no means over images
        for name in ("val_loss", "val_quantization", "val_budget"):
            del whole[name]
    for shared in found:
        shared = {name: shared[f"{case}, fitted"][name] for name in whole}
        torch.testing.assert_close(shared, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "cases"), [("gate", GATES), ("budget", BUDGETS), ("quantizer", QUANTIZERS)])
def test_no_registered_part_is_left_out(kind: str, cases: dict) -> None:
    own = {part.name for part in components(kind) if part.distribution == "vltok"}
    assert own and own <= {name.split(",")[0] for name in cases}


def test_no_prior_is_left_out() -> None:
    # of a class that has another name of before, the last one in the alphabet is that of now
    own = {part.target: part.name for part in components("prior") if part.distribution == "vltok"}
    assert own and set(own.values()) <= {name.split(",")[0] for name in CASES}


def test_codes_restart_alike(found: list[dict]) -> None:
    first, second = (result["restarts"] for result in found)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert (first["buffer tokenizer.quantizer.counts"] >= 1).all()


class Exchanges(TorchDispatchMode):
    """Counts what is exchanged between processes."""

    count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.count += operation.namespace == "c10d"
        return operation(*arguments, **(keywords or {}))


@pytest.fixture
def pretended() -> Iterator[None]:
    """Another process that is none: what is exchanged goes nowhere."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("case", "exchanges"),
    [
        # the share of the loss, the budget, the codebook; whether all is finite
        ("feature, ratio, batch, ema-vq", 4),
        ("feature, code-length, image, vq", 4),
        # and of `gain` how many regions each has, these, and what their lesson came to
        ("gain, ratio, image, ema-vq", 7),
        # how many tokens count; whether all is finite
        ("dq-transformer", 2),
    ],
)
def test_a_step_exchanges_as_little_as_it_can(case: str, exchanges: int, pretended: None) -> None:
    training, batch = CASES[case]()
    as_if_by_a_trainer(training)
    with Exchanges() as counted:
        training.training_step(batch, 0).backward()
    assert counted.count == exchanges


@pytest.mark.parametrize("factors", [[8, 16], [2, 4, 8, 16]])
def test_the_prices_of_all_granularities_take_one_exchange(factors: list[int], pretended: None) -> None:
    """And one before it, of how many regions each process has."""
    gate = GainGate(4, {factor: 1 / len(factors) for factor in factors})
    features = [torch.rand(2, 4, 32 // factor, 32 // factor) for factor in reversed(factors)]
    with Exchanges() as counted:
        gate(features, torch.rand(2, 3, 32, 32))
    assert counted.count == 2


def test_a_budget_that_all_keep_together_costs_nothing(found: list[dict]) -> None:
    assert [float(result["met budget"]) for result in found] == [0, 0]


def test_means_and_rows_are_those_of_all(found: list[dict]) -> None:
    for result in found:
        assert result["mean"].tolist() == [pytest.approx((0 + 1 + 2) / 3)]
        assert result["rows"].tolist() == [[0, 0], [1, 1], [1, 1]]


def test_all_learn_that_one_diverged_and_the_first_says_it(found: list[dict]) -> None:
    messages, kinds = zip(*(result["diverged"] for result in found), strict=True)
    assert kinds == ("Diverged", "DivergedElsewhere") and len(set(messages)) == 1
    assert "step 3 (not finite: budget)" in messages[0]
