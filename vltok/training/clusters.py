"""The processes that train together: those that a launcher has started, or those that Lightning starts itself."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch import Trainer

from vltok.errors import UserError
from vltok.launchers import find_rank, started_by_srun


def cluster_plugins(given: Sequence[object]) -> list[ClusterEnvironment]:
    """What tells the trainer about its processes, where it would be wrong itself.

    Lightning takes the script of a SLURM batch job for one of its tasks, though nobody has started the others.

    Args:
        given: The plugins of the recipe, whose choice counts.
    """
    if any(isinstance(plugin, ClusterEnvironment) for plugin in given) or TorchElasticEnvironment.detect():
        return []
    alone = SLURMEnvironment.detect() and not started_by_srun(os.environ)
    return [LightningEnvironment()] if alone else []


def check_processes(trainer: Trainer) -> None:
    """See that the trainer counts as many processes as a launcher has started: else each would train on its own.

    Raises:
        UserError: It does not, or the launcher's variables contradict each other.
    """
    _, started, _ = find_rank(os.environ)
    counted = trainer.num_devices * trainer.num_nodes
    if trainer.num_nodes > 1 and started == 1 and not {"NODE_RANK", "GROUP_RANK"} & os.environ.keys():
        raise UserError(
            f"trainer.num_nodes is {trainer.num_nodes}, but nothing says which machine this is: start the training on "
            "each by torchrun or srun, or set NODE_RANK and MASTER_ADDR there"
        )
    if started > 1 and counted != started:
        raise UserError(
            f"trainer.devices × trainer.num_nodes is {trainer.num_devices} × {trainer.num_nodes}, but {started} "
            "processes were started: both must be those of torchrun (--nproc-per-node, --nnodes) or srun"
        )
