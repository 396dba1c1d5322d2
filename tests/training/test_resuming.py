"""A training that goes on from any of its checkpoints is the undisturbed one, batch for batch and bit for bit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor

from vltok.pictures.photos import Photos
from vltok.training import ExponentialMovingAverage, TokenizerTraining
from vltok.training.last_checkpoint import LastCheckpoint
from vltok.training.resuming import validation_follows
from vltok.training.stopping import StopSignals

from .conftest import TinyTokenizer


class Noted(Callback):
    """Notes the keys of each batch, and after how many steps there was a validation."""

    def __init__(self) -> None:
        self.batches: list[tuple] = []
        self.validations: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append((trainer.current_epoch, batch_idx, trainer.global_step, tuple(batch.keys)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validations.append(trainer.global_step)


class SaveEverywhere(Checkpoint):
    """Saves wherever `vltok fit` may."""

    def __init__(self, folder: Path, noted: Noted) -> None:
        self.folder, self.noted = folder, noted
        self.saved: list[tuple[Path, int, int]] = []

    def save(self, trainer: Trainer) -> None:
        path = self.folder / f"{len(self.saved)}.ckpt"
        trainer.save_checkpoint(path)
        self.saved.append((path, len(self.noted.batches), len(self.noted.validations)))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step = (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if step and not trainer.is_last_batch and not validation_follows(trainer):
            self.save(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer)


def save_as_fit_does(folder: Path, noted: Noted) -> tuple[Checkpoint, list[tuple[Path, int, int]]]:
    """What `vltok fit` saves with, after each step; and a copy of all that it saves."""
    saved: list[tuple[Path, int, int]] = []

    def copy() -> None:
        path = folder / f"{len(saved)}.ckpt"
        saved.append((Path(shutil.copy(folder / "last.ckpt", path)), len(noted.batches), len(noted.validations)))

    return LastCheckpoint(folder / "last.ckpt", StopSignals(), interval=timedelta(0), on_saved=copy), saved


@dataclass
class Trained:
    """What a training came to."""

    noted: Noted = field(default_factory=Noted)
    state: dict[str, Tensor] = field(default_factory=dict)
    optimizer: list[Tensor] = field(default_factory=list)
    drawn: list = field(default_factory=list)
    counters: list = field(default_factory=list)


def train(folder: Path, save: bool, as_fit_does: bool = False, **options: Any) -> tuple[Trained, list]:
    torch.manual_seed(1)
    trained = Trained()
    saves = SaveEverywhere(folder, trained.noted)
    saved = saves.saved
    if as_fit_does:
        saves, saved = save_as_fit_does(folder, trained.noted)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    checkpoint = options.pop("ckpt_path", None)
    callbacks = [ExponentialMovingAverage(0.5), trained.noted, *([saves] if save else [])]
    trainer = Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, callbacks=callbacks, accumulate_grad_batches=2,
        enable_checkpointing=save, **quiet, **options,
    )  # fmt: skip
    module = TokenizerTraining(TinyTokenizer(), learning_rate=1e-2, schedule="cosine", calibration_batches=2)
    data = Photos(size=16, batch_size=2, train_crops=12, val_crops=4)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    trained.state = {name: value.clone() for name, value in module.state_dict().items()}
    moments = trainer.optimizers[0].state_dict()["state"].values()
    trained.optimizer = [value for each in moments for value in each.values()]
    trained.drawn = torch.rand(3).tolist()
    loop = trainer.fit_loop
    counters = (
        loop.epoch_progress,
        loop.epoch_loop.batch_progress,
        loop.epoch_loop.automatic_optimization.optim_progress,
    )
    trained.counters = [counter.state_dict() for counter in counters]
    return trained, saved


@pytest.mark.parametrize("end", [{"max_epochs": 2}, {"max_epochs": -1, "max_steps": 5}], ids=["epochs", "steps"])
@pytest.mark.parametrize("validation", [{"val_check_interval": 4}, {"limit_val_batches": 0}], ids=["validated", "not"])
@pytest.mark.filterwarnings("ignore")
def test_from_each_checkpoint(end: dict, validation: dict, tmp_path: Path) -> None:
    undisturbed, saved = train(tmp_path, save=True, **end, **validation)
    assert len(saved) >= 5 and (undisturbed.noted.validations == [2, 5][: len(undisturbed.noted.validations)])
    unfinished = [each for each in saved if each[1] < len(undisturbed.noted.batches)]
    for path, batches, validations in unfinished:
        resumed, _ = train(tmp_path, save=False, ckpt_path=path, **end, **validation)
        assert resumed.noted.batches == undisturbed.noted.batches[batches:]
        assert resumed.noted.validations == undisturbed.noted.validations[validations:]
        assert resumed.counters == undisturbed.counters and resumed.drawn == undisturbed.drawn
        for name, value in undisturbed.state.items():
            assert torch.equal(value, resumed.state[name]), name
        assert all(map(torch.equal, undisturbed.optimizer, resumed.optimizer))


@pytest.mark.filterwarnings("ignore")
def test_from_what_fit_saves_where_validations_fall_between_accumulated_batches(tmp_path: Path) -> None:
    options = {"max_epochs": 2, "val_check_interval": 3}
    undisturbed, saved = train(tmp_path, save=True, as_fit_does=True, **options)
    # steps end with batches 2, 4 and 6, and validations follow batches 3 and 6
    assert [batches for _, batches, _ in saved] == [2, 4, 6, 8, 10, 12]
    for path, batches, validations in saved[:-1]:
        resumed, _ = train(tmp_path, save=False, ckpt_path=path, **options)
        assert resumed.noted.batches == undisturbed.noted.batches[batches:]
        assert resumed.noted.validations == undisturbed.noted.validations[validations:]
        assert resumed.counters == undisturbed.counters and resumed.drawn == undisturbed.drawn
        assert all(torch.equal(value, resumed.state[name]) for name, value in undisturbed.state.items())


@pytest.mark.filterwarnings("ignore")
def test_fit_saves_after_a_validation_where_one_follows_each_step(tmp_path: Path) -> None:
    undisturbed, saved = train(tmp_path, save=True, as_fit_does=True, max_epochs=1, val_check_interval=2)
    assert [each[1:] for each in saved] == [(2, 1), (4, 2), (6, 3)]
    resumed, _ = train(tmp_path, save=False, ckpt_path=saved[0][0], max_epochs=1, val_check_interval=2)
    assert resumed.noted.batches == undisturbed.noted.batches[2:]
    assert resumed.noted.validations == undisturbed.noted.validations[1:]


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_is_over_leaves_the_averaged_weights(tmp_path: Path) -> None:
    options = {"max_epochs": 1}
    undisturbed, saved = train(tmp_path, save=True, **options)
    resumed, _ = train(tmp_path, save=False, ckpt_path=saved[-1][0], **options)
    assert resumed.noted.batches == []
    for name, value in undisturbed.state.items():
        assert torch.equal(value, resumed.state[name]), name
