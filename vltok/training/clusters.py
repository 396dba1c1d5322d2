"""The processes that train together: those that a launcher has started, or those that Lightning starts itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from lightning.fabric.utilities.rank_zero import _get_rank, rank_zero_only
from lightning.pytorch import Trainer

from vltok.errors import UserError
from vltok.launchers import VARIABLES, find_rank, forget_leaked, started_by_torchrun


@contextlib.contextmanager
def own_processes() -> Iterator[None]:
    """Within the block, Lightning reads of no processes but those that a launcher, or itself, has really started.

    It takes the script of a SLURM batch job for one of its tasks, though nobody has started the others, and whatever
    has a rank for one of many.
    """
    before = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    forget_leaked(os.environ)
    if started_by_torchrun(os.environ):  # Lightning knows it by its run alone
        for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("LOCAL_RANK", "0")):
            os.environ.setdefault(name, value)
    vars(rank_zero_only)["rank"] = _get_rank() or 0  # Lightning asks once, while it is imported
    try:
        yield
    finally:
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(before)


def forget_machines() -> None:
    """Unset what tells of other machines, for a training on this one alone."""
    if "LOCAL_RANK" not in os.environ and not started_by_torchrun(os.environ):
        for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)


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
