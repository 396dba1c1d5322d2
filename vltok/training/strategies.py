"""Which of Lightning's strategies train what a single process would."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from vltok.errors import UserError
from vltok.training.sharding import FSDP2

_NAMES = ("auto", "single_device", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", FSDP2)


def check_strategy(strategy: Strategy | str) -> None:
    """Refuse a strategy under which training would be another, before anything is built.

    FSDP and DeepSpeed give each process flat pieces of the weights: weight decay would not know matrices from biases,
    gradients would be clipped piece by piece, and bundles hold pieces. Lightning's model parallel strategy keeps the
    shapes, but gathers weights for `forward` alone, and a prior is asked for its `loss`: `fsdp2` is the way here. Those
    that fork or spawn give every process the same random numbers.

    Raises:
        UserError: It is none that is allowed.
    """
    if isinstance(strategy, str):
        fits, name = strategy in _NAMES, strategy
    else:
        one = isinstance(strategy, SingleDeviceStrategy)
        fits = one or (isinstance(strategy, DDPStrategy) and strategy._start_method == "popen")
        name = type(strategy).__name__
    if not fits:
        raise UserError(
            f"trainer.strategy is {name}, which vltok does not train with: weight decay, clipping and bundles need "
            f"whole weights, and each process random numbers of its own; choose among {', '.join(_NAMES)} (where the "
            f"memory of a device is short, {FSDP2} is for priors; or lower the batch size and raise "
            "trainer.accumulate_grad_batches)"
        )
