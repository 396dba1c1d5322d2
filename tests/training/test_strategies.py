"""Strategies that shard, fork or spawn are refused before anything is built."""

import pytest
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy, StrategyRegistry

from vltok.errors import UserError
from vltok.training.strategies import check_strategy

ALLOWED = {"auto", "single_device", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"}
ALLOWED |= {"fsdp2"}


def _name(strategy: object) -> str:
    """A name that every process of the tests gives it."""
    return strategy if isinstance(strategy, str) else type(strategy).__name__


@pytest.mark.parametrize("strategy", [*sorted(ALLOWED), DDPStrategy(), SingleDeviceStrategy("cpu")], ids=_name)
def test_what_trains_as_one_process_does(strategy) -> None:
    check_strategy(strategy)


@pytest.mark.parametrize(
    "strategy",
    [
        *sorted(set(StrategyRegistry.available_strategies()) - ALLOWED),
        ModelParallelStrategy(),
        DDPStrategy(start_method="fork"),
    ],
    ids=_name,
)
def test_what_does_not_is_refused(strategy) -> None:
    with pytest.raises(
        UserError, match=rf"trainer\.strategy is {_name(strategy)}, .*choose among auto, single_device, ddp,"
    ):
        check_strategy(strategy)
