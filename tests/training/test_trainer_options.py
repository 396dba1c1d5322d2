"""Arguments of the trainer that cannot mean what they say, and those that Lightning alone does otherwise."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule

import vltok
import vltok.training
from vltok.errors import UserError
from vltok.training.trainer_options import FirstBatches, keep_first_batches
from vltok.verbs.fitting import FitResult

from ..cli.runs import RECIPE


def fitted(folder: Path, *callbacks: dict[str, Any], resume: bool = False, **trainer: Any) -> FitResult:
    """A training of seconds; of three epochs by default."""
    tree = yaml.safe_load(RECIPE)
    tree["trainer"] |= {"max_steps": -1, "max_epochs": 3, **trainer}
    tree["trainer"]["callbacks"] = list(callbacks)
    return vltok.fit(tree, out=folder, resume=resume)


def callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_check_interval": 0}, "val_check_interval is 0: to validate never, set trainer.limit_val_batches to 0"),
        ({"val_check_interval": 1000}, "`val_check_interval` .1000. must be less than"),
        ({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch must be at least 1, not 0"),
        ({"check_val_every_n_epoch": -2}, "check_val_every_n_epoch must be at least 1, not -2"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches must be at least 1, not 0"),
        ({"gradient_clip_val": -1.0}, "gradient_clip_val must be at least 0, not -1.0"),
        ({"limit_train_batches": 0}, "limit_train_batches is 0: nothing would be trained"),
        ({"max_steps": 0}, "max_steps is 0: nothing would be trained"),
        ({"max_epochs": 0}, "max_epochs is 0: nothing would be trained"),
        ({"log_every_n_steps": 0}, "log_every_n_steps is 0: no figure would be logged"),
        ({"min_steps": 9, "max_steps": 8}, "min_steps is 9, but trainer.max_steps is 8: give no less than that"),
        ({"barebones": True}, "barebones is true, so that nothing would be logged or saved: leave it out"),
        ({"min_epochs": -1}, "min_epochs must be at least 0, not -1"),
        (
            {"gradient_clip_algorithm": "norm"},
            "algorithm is norm, but no gradient is clipped: give trainer.gradient_clip_",
        ),
        ({"limit_train_batches": 0.001}, "0.001 of the `train_dataloader`"),
        ({"overfit_batches": 1.5}, "overfit_batches must be a whole number, or a share from 0 to 1, not 1.5"),
        ({"fast_dev_run": -1}, "fast_dev_run=-1 is not a valid"),
        ({"num_nodes": 2}, "num_nodes is 2, but nothing says which machine this is"),
        ({"precision": "transformer-engine"}, "trainer: Requirement 'transformer_engine"),
        ({"max_time": "12:00:00"}, "12:00:00 of hours would be 00:12:00:00"),
        ({"max_time": "1h"}, "max_time must be days:hours:minutes:seconds, such as 00:12:00:00, not '1h'"),
        ({"max_time": "00:00:00:00"}, "max_time is 00:00:00:00: nothing would be trained"),
        ({"accelerator": "tpu"}, "trainer: "),
        ({"accelerator": "foo"}, "invalid accelerator name"),
    ],
)
def test_what_cannot_be_meant_is_one_line_before_a_step(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        fitted(tmp_path / "run", **options)
    assert "trainer" in str(raised.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("watching", "options", "message"),
    [
        (callback("EarlyStopping", monitor="val_los"), {}, "EarlyStopping monitors .*'val_los'.*mean 'val_loss'"),
        (
            callback("ModelCheckpoint", monitor="nothing"),
            {},
            "ModelCheckpoint monitors .* no figure is called 'nothing'",
        ),
        (callback("EarlyStopping", monitor="val_loss"), {"limit_val_batches": 0}, "so that nothing is validated"),
        (
            callback("ModelCheckpoint", dirpath="/dev/null/x"),
            {},
            "dirpath '/dev/null/x' lies below '/dev/null', which is",
        ),
        (callback("BackboneFinetuning"), {}, "trainer: .* object has no attribute 'backbone'"),
        (callback("LearningRateFinder"), {}, "LearningRateFinder, which trains before parts are calibrated"),
    ],
)
def test_a_callback_that_cannot_work_is_told_in_the_first_step(
    watching: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        fitted(tmp_path / "run", watching, **options)
    assert not (tmp_path / "run").exists()


def test_two_callbacks_that_collide_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer: Found more than one stateful callback of type `ModelCheckpoint`"):
        fitted(tmp_path / "run", callback("ModelCheckpoint"), callback("ModelCheckpoint"))


def test_every_epoch_the_best_and_early_stopping_work_also_with_resume(tmp_path: Path) -> None:
    callbacks = [
        callback("ModelCheckpoint", save_top_k=-1, filename="{epoch}"),
        callback("ModelCheckpoint", monitor="val_psnr", mode="max", filename="best"),
        callback("EarlyStopping", monitor="val_psnr", mode="max", patience=9),
    ]
    fitted(tmp_path / "run", *callbacks, max_epochs=2)
    run = fitted(tmp_path / "run", *callbacks, max_epochs=3, resume=True)
    assert run.steps == 24
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt")}
    assert {"epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt", "best.ckpt", "last.ckpt"} <= kept


def test_a_run_that_ends_before_its_first_validation_keeps_its_work(tmp_path: Path) -> None:
    stopping = callback("EarlyStopping", monitor="val_loss")
    assert fitted(tmp_path / "run", stopping, max_steps=2).ended == "max_steps"


class Numbers(LightningDataModule):
    """Other batches in every epoch."""

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(torch.arange(40), batch_size=4, shuffle=True)


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (100, 10), (0.25, 2), (0.01, 1), (1.0, 10)])
def test_overfitted_batches_are_the_same_in_every_epoch(limit: float, count: int) -> None:
    data = Numbers()
    keep_first_batches(data, limit)
    batches = data.train_dataloader()
    assert isinstance(batches, FirstBatches) and len(batches) == count
    first, second = (torch.cat(list(batches)) for _ in range(2))
    assert torch.equal(first, second) and len(first) == 4 * count


def test_overfitting_trains_on_the_same_pictures_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    seen: list[torch.Tensor] = []
    step = vltok.training.TokenizerTraining.training_step
    monkeypatch.setattr(
        vltok.training.TokenizerTraining,
        "training_step",
        lambda self, batch, index: (seen.append(batch.images.clone()), step(self, batch, index))[1],
    )
    fitted(tmp_path / "run", overfit_batches=1)
    assert len(seen) == 3 and torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
    assert not [warning for warning in recwarn if "overfit" in str(warning.message)]
