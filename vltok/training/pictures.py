"""Pictures of a training, for TensorBoard."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchvision.utils import make_grid

from vltok.errors import UserError
from vltok.figures.coding_maps import draw_coding_map, error_map
from vltok.interfaces import Tokenizer
from vltok.pictures.images import ImageBatch
from vltok.training.objective import Objective


class PictureLogger(Callback):
    """Logs rows of input, reconstruction, coding map and error map to TensorBoard; other loggers get no pictures.

    Of the first validation batch at each validation, as ``pictures/validation``, and of the training batch now and
    then, as ``pictures/training``.

    Args:
        count: How many images are drawn, one a row.
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
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        tokenizer = module.trained if isinstance(module, Objective) else None
        if not loggers or not trainer.is_global_zero or not isinstance(tokenizer, Tokenizer):
            return
        with trainer.precision_plugin.forward_context():
            picture = draw_rows(tokenizer, batch.images[: self.count])
        for logger in loggers:
            logger.experiment.add_image(name, picture.cpu(), trainer.global_step)


@torch.no_grad()
def draw_rows(tokenizer: Tokenizer, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "3 _ _"]:
    """A row for each image: input, reconstruction, coding map (where codes lie on a grid), error map; in [0, 1]."""
    codes = tokenizer.encode(images)
    reconstructions = tokenizer.decode(codes).float().clamp(-1, 1)
    columns = [images, reconstructions]
    if tokenizer.spec.gridded:
        columns.append(draw_coding_map(images, codes.require_grains(), tokenizer.spec))
    columns.append(error_map(reconstructions, images))
    tiles = torch.stack(columns, dim=1).flatten(0, 1)
    return (make_grid(tiles, nrow=len(columns), padding=2, pad_value=1.0) + 1) / 2
