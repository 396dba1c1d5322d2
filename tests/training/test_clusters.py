"""The trainer's processes under launchers, and in a batch script in which nobody has started others."""

import os

import pytest
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer

from vltok.errors import UserError
from vltok.launchers import VARIABLES
from vltok.training.clusters import check_processes, forget_machines, own_processes

from ..test_launchers import DEEPSPEED, KUBEFLOW, SBATCH, SRUN, TORCHRUN


def _set(patch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


def _trainer() -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", devices=1, **quiet)


@pytest.mark.parametrize(
    "variables",
    [
        SBATCH,
        {**SBATCH, "SLURM_STEP_ID": str(0xFFFFFFFB)},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "NODE_RANK": "3", "MASTER_ADDR": "10.0.0.1"},
        {"LOCAL_RANK": "1"},
    ],
)
def test_what_no_launcher_has_started_trains_alone(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, variables)
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # as Lightning was imported
    with own_processes():
        forget_machines()
        trainer = _trainer()
        check_processes(trainer)
        assert trainer.world_size == 1 and trainer.is_global_zero and rank_zero_only.rank == 0
        assert not os.environ.keys() & {"NODE_RANK", "MASTER_ADDR"}
    assert {name: os.environ[name] for name in variables} == variables


@pytest.mark.parametrize(("started", "local"), [(KUBEFLOW, 0), (DEEPSPEED, 1), (TORCHRUN, 1)])
def test_the_trainer_takes_a_launcher_s_ranks(
    started: dict[str, str], local: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, started)
    with own_processes():
        cluster = TorchElasticEnvironment()
        assert cluster.detect()
        assert (cluster.global_rank(), cluster.local_rank()) == (int(started["RANK"]), local)
        assert rank_zero_only.rank == int(started["RANK"])
    assert {name: os.environ.get(name) for name in VARIABLES} == {name: started.get(name) for name in VARIABLES}


@pytest.mark.parametrize("started", [TORCHRUN, {**SRUN, "SLURM_NTASKS": "1"}])
def test_processes_that_would_each_train_alone_are_refused(
    started: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, started)
    with pytest.raises(UserError, match=r"is 1 × 1, but (8|4) processes were started"), own_processes():
        check_processes(_trainer())
