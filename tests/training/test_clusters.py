"""The trainer's processes under launchers, and in a batch script in which nobody has started others."""

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer

from vltok.errors import UserError
from vltok.training.clusters import check_processes, cluster_plugins

from ..test_launchers import SBATCH, SRUN, TORCHRUN


def _set(patch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


def _trainer() -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", devices=1, plugins=cluster_plugins([]), **quiet)


def test_a_batch_script_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, SBATCH)
    trainer = _trainer()
    check_processes(trainer)
    assert trainer.world_size == 1 and trainer.is_global_zero


def test_who_brings_a_cluster_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster_plugins([]) == []
    _set(monkeypatch, SBATCH)
    assert cluster_plugins([LightningEnvironment()]) == []
    _set(monkeypatch, SRUN)
    assert cluster_plugins([]) == []


@pytest.mark.parametrize("started", [TORCHRUN, {**SRUN, "SLURM_NTASKS": "1"}])
def test_processes_that_would_each_train_alone_are_refused(
    started: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, started)
    with pytest.raises(UserError, match=r"is 1 × 1, but (8|4) processes were started"):
        check_processes(_trainer())
