"""Training with weights, gradients and moments in pieces, one on each device: PyTorch's FSDP2."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerStatus
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from vltok.errors import UserError
from vltok.interfaces import Prior
from vltok.nn.attention import Attending
from vltok.processes import world
from vltok.training.objective import Objective, name_of_trained
from vltok.training.weight_averaging import ExponentialMovingAverage

#: What `trainer.strategy` calls it.
FSDP2 = "fsdp2"


def check_sharding(model: object, precision: object, callbacks: Sequence[Callback]) -> None:
    """See that a training can keep its weights in pieces, before anything is built.

    Raises:
        UserError: It trains no prior, in a precision that scales gradients, or with an average of the weights.
    """
    if not isinstance(model, Objective) or not isinstance(model.trained, Prior):
        raise UserError(
            f"trainer.strategy is {FSDP2}, which is for priors: codebooks, budgets and discriminators need whole "
            "weights; give ddp"
        )
    if str(precision).startswith("16"):
        raise UserError(f"trainer.strategy {FSDP2} scales no gradients: give trainer.precision bf16-mixed or 32-true")
    if any(isinstance(callback, ExponentialMovingAverage) for callback in callbacks):
        raise UserError(
            f"trainer.strategy is {FSDP2}, but ExponentialMovingAverage averages whole weights: leave it out of "
            "trainer.callbacks, or give ddp"
        )


@final
class FullySharded(DDPStrategy):
    """Lightning's strategy for several processes, but each holds a piece of a prior's weights instead of all.

    Blocks are put together where they are computed, one after another. What is saved is whole: one process reads it, or
    any number of them. When training ends, every process has the whole prior again, whose place the host keeps
    meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self._spare: Prior | None = None

    def configure_ddp(self) -> None:
        """Take the weights apart, where DDP would be wrapped around the module."""
        objective = self._objective
        prior = objective.trained
        assert isinstance(prior, Prior)  # `check_sharding` has seen that
        _sync_module_states(objective)
        self._spare = copy.deepcopy(prior).cpu()
        shard(prior, init_device_mesh(self.root_device.type, (world()[1],)))

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole state, on the host of the first process; all must take part."""
        return self._gathered(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The same of an optimizer."""
        return self._gathered(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's piece of a whole state."""
        states = []
        for optimizer, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            pieces = {
                place: {name: _piece(value, parameters[place]) for name, value in state.items()}
                for place, state in whole["state"].items()
            }
            states.append({**whole, "state": pieces})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})

    def teardown(self) -> None:
        """Put the whole prior back, unless the training was cut short: then other processes may not answer."""
        objective = self._objective
        if self._spare is not None:
            self.optimizers = []
            if objective.trainer.state.status != TrainerStatus.INTERRUPTED:
                state = {name: _whole(value).cpu() for name, value in objective.trained.state_dict().items()}
                self._spare.load_state_dict(state)
                setattr(objective, name_of_trained(objective), self._spare.train(objective.trained.training))
            self._spare = None
        super().teardown()

    @property
    def _objective(self) -> Objective:
        assert isinstance(self.lightning_module, Objective)
        return self.lightning_module

    def _gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state whose pieces are put together one by one; other processes than the first keep none."""

        def gathered(value: Any) -> Any:
            if not isinstance(value, DTensor):
                return value
            whole = _whole(value)
            return whole.cpu() if self.is_global_zero else whole.new_empty(0)

        found: dict[str, Any] = tree_map(gathered, state)
        return found


def shard(prior: Prior, mesh: DeviceMesh) -> None:
    """Take a prior's weights apart, block by block; its `loss` puts them together.

    Args:
        prior: On the device of this process, with the same weights on all.
        mesh: The processes that share it.
    """
    for module in prior.modules():
        if isinstance(module, Attending):
            fully_shard(module, mesh=mesh)
    fully_shard(prior, mesh=mesh)
    register_fsdp_forward_method(prior, "loss")


def _whole(value: torch.Tensor) -> torch.Tensor:
    """All pieces of a value; the processes must all call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _piece(value: Any, parameter: nn.Parameter) -> Any:
    """This process's piece of what belongs to each weight of a parameter."""
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape or not isinstance(parameter, DTensor):
        return value
    mesh = parameter.device_mesh
    return distribute_tensor(value.to(parameter.device), mesh, parameter.placements, src_data_rank=None)
