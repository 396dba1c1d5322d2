"""A training of two processes that goes on with one or three."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import distributed

from vltok.pictures.photos import Photos
from vltok.training import ExponentialMovingAverage, TokenizerTraining

from .conftest import TinyTokenizer

#: Of an epoch of 24 images, two processes have taken 16 in 4 steps when the checkpoint is saved.
IMAGES, SAVED_AFTER = 24, 8


class Noted(Callback):
    """Notes each batch, and saves in the midst of the first epoch."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.batches: list[tuple] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, _: Any, batch: Any, index: int) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"] / (trainer.world_size * trainer.accumulate_grad_batches)
        self.batches.append((trainer.current_epoch, index, trainer.global_step, tuple(batch.keys), rate))
        if self.path is not None and len(self.batches) == SAVED_AFTER:
            trainer.save_checkpoint(self.path)


def train(processes: int, save: Path | None = None, resumed: Path | None = None) -> dict[str, Any]:
    """Train, from the start or from a checkpoint; what came of it."""
    torch.manual_seed(1)
    module, noted = TokenizerTraining(TinyTokenizer(), learning_rate=1e-2, schedule="cosine"), Noted(save)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=2,
        accumulate_grad_batches=2,
        callbacks=[ExponentialMovingAverage(0.5), noted],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    data = Photos(size=16, batch_size=1, train_crops=IMAGES, val_crops=2, workers=0)
    trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    moments = [value for each in trainer.optimizers[0].state_dict()["state"].values() for value in each.values()]
    # what a norm has seen is each process's own
    state = {name: value.clone() for name, value in module.tokenizer.state_dict().items() if "running" not in name}
    return {"batches": noted.batches, "state": state, "moments": moments}


def join(rank: int, processes: int, folder: Path) -> None:
    """Meet the other processes, as torchrun's do."""
    distributed.init_process_group("gloo", f"file://{folder}/{processes}", rank=rank, world_size=processes)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), GROUP_RANK="0")
    os.environ.update(LOCAL_WORLD_SIZE=str(processes), TORCHELASTIC_RUN_ID="others", MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT="1")


def one_of_three(rank: int, folder: Path) -> None:
    """Two begin, and all three go on."""
    torch.set_num_threads(1)
    if rank < 2:
        join(rank, 2, folder)
        torch.save(train(2, save=folder / "two.ckpt"), folder / f"2-{rank}.pt")
        distributed.destroy_process_group()
    join(rank, 3, folder)
    torch.save(train(3, resumed=folder / "two.ckpt"), folder / f"3-{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    torch.multiprocessing.start_processes(one_of_three, (folder,), nprocs=3, start_method="fork")
    return folder


def all_of(folder: Path, processes: int) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{processes}-{rank}.pt", weights_only=False) for rank in range(processes)]


def order(epoch: int) -> list[str]:
    """The images of an epoch, in the order in which one process takes them."""
    loader = Photos(size=16, batch_size=1, train_crops=IMAGES, val_crops=2, workers=0).train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch.keys[0] for batch in loader]


def taken(found: list[dict[str, Any]], epoch: int) -> list[str]:
    """The images of an epoch that the processes took, in turn."""
    of_each = [[batch[3][0] for batch in each["batches"] if batch[0] == epoch] for each in found]
    return [key for keys in zip(*of_each, strict=True) for key in keys]


@pytest.mark.filterwarnings("ignore")
def test_the_images_the_steps_and_the_schedule_go_on(folder: Path) -> None:
    before, among_three = all_of(folder, 2), all_of(folder, 3)
    assert taken(before, 0)[: 2 * SAVED_AFTER] == order(0)[: 2 * SAVED_AFTER]
    with pytest.warns(
        UserWarning, match=r"by 2 processes and goes on with 1: .* 1/2 of its images, and epoch 0 goes on"
    ):
        alone = [train(1, save=folder / "one.ckpt", resumed=folder / "two.ckpt")]
    # a step of three has six images: that in which the 16th lies begins after the 12th
    for found, first in ((alone, 16), (among_three, 12)):
        assert taken(found, 0) == order(0)[first:] and taken(found, 1) == order(1)
    assert [batch[1:3] for batch in alone[0]["batches"][:2]] == [(16, 4), (17, 5)]
    assert [batch[1:3] for batch in among_three[0]["batches"][:2]] == [(4, 4), (5, 5)]
    assert alone[0]["batches"][-1][:3] == (1, 23, 4 + 4 + 12) and among_three[0]["batches"][-1][:3] == (1, 7, 4 + 2 + 4)
    for found in (alone, among_three):
        rates = [batch[4] for batch in found[0]["batches"]]
        assert rates[0] == pytest.approx(before[0]["batches"][SAVED_AFTER][4])
        assert rates == sorted(rates, reverse=True) and rates[-1] < 0.1 * rates[0]

    # one that is left again, and goes on with as many, does so in the same schedule
    again = train(1, resumed=folder / "one.ckpt")["batches"]
    assert again == alone[0]["batches"][SAVED_AFTER:] and again[0][4] > 0


def test_all_of_them_have_the_same_weights_and_moments(folder: Path) -> None:
    first, *others = all_of(folder, 3)
    for other in others:
        torch.testing.assert_close(other["state"], first["state"], rtol=0, atol=0)
        torch.testing.assert_close(other["moments"], first["moments"], rtol=0, atol=0)
    assert not torch.equal(first["state"]["out.weight"], all_of(folder, 2)[0]["state"]["out.weight"])
