"""Pictures of a training, for all loggers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image
from torch import Tensor

from vltok.errors import UserError
from vltok.figures.grids import reconstruction_grid
from vltok.files import written_whole
from vltok.interfaces import Tokenizer
from vltok.pictures.images import ImageBatch
from vltok.training.objective import Objective


class FiguresAlone:
    """What a logger inherits that is given no pictures."""


class PictureLogger(Callback):
    """Logs input, reconstruction, coding map and error map of some images.

    Of the first validation batch at each validation, as ``pictures/validation``, and of the training batch now and
    then, as ``pictures/training``. TensorBoard and Weights & Biases show them; of any other logger they are PNG files
    in its own folder, or in the run's `logs/` where it has none.

    Args:
        count: How many images are drawn.
        every_n_steps: Steps between pictures of training images; null for none.

    Raises:
        UserError: A number below 1.
    """

    def __init__(self, count: int = 8, every_n_steps: int | None = 1000) -> None:
        if count < 1 or (every_n_steps is not None and every_n_steps < 1):
            raise UserError(f"pictures need a count and every_n_steps of at least 1, not {count} and {every_n_steps}")
        self.count = count
        self.every_n_steps = every_n_steps
        self._step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, batch_idx: int
    ) -> None:
        """Draw training images."""
        # several batches may make one step
        moved, self._step = trainer.global_step != self._step, trainer.global_step
        if self.every_n_steps is not None and moved and trainer.global_step % self.every_n_steps == 0:
            self._log(trainer, pl_module, batch, "pictures/training")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first held-out images."""
        if batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking:
            self._log(trainer, pl_module, batch, "pictures/validation")

    def _log(self, trainer: Trainer, module: LightningModule, batch: ImageBatch, name: str) -> None:
        loggers = [logger for logger in trainer.loggers if not isinstance(logger, FiguresAlone)]
        tokenizer = module.trained if isinstance(module, Objective) else None
        if not loggers or not trainer.is_global_zero or not isinstance(tokenizer, Tokenizer):
            return
        with trainer.precision_plugin.forward_context():
            picture = draw_coded(tokenizer, batch.images[: self.count])
        for logger in loggers:
            log_picture(logger, name, picture, trainer.global_step, Path(trainer.default_root_dir) / "logs")


def default_pictures(model: LightningModule, callbacks: Sequence[Callback]) -> list[Callback]:
    """What logs the pictures of a tokenizer's training, where none of its callbacks does."""
    tokenizes = isinstance(model, Objective) and isinstance(model.trained, Tokenizer)
    logged = any(isinstance(callback, PictureLogger) for callback in callbacks)
    return [PictureLogger()] if tokenizes and not logged else []


@torch.no_grad()
def draw_coded(tokenizer: Tokenizer, images: Float[Tensor, "b 3 H W"]) -> Image.Image:
    """The `reconstruction_grid` of images that a tokenizer codes."""
    codes = tokenizer.encode(images)
    return reconstruction_grid(images, tokenizer.decode(codes), codes, tokenizer.spec)


@runtime_checkable
class _ShowsImages(Protocol):
    """A logger such as Lightning's for Weights & Biases."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None: ...


def log_picture(logger: Logger, name: str, picture: Image.Image, step: int, folder: Path) -> None:
    """Give a picture to a logger; its file goes to this folder where the logger neither shows pictures nor has one."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")
    elif isinstance(logger, _ShowsImages):
        logger.log_image(key=name, images=[picture], step=step)
    else:
        with written_whole(Path(logger.log_dir or folder) / f"{name}-{step:07d}.png") as path:
            picture.save(path)
