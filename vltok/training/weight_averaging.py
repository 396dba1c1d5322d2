"""An exponential moving average (EMA) of the weights of what is trained."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from timm.utils import ModelEmaV3

from vltok.errors import UserError
from vltok.interfaces import Prior, Tokenizer
from vltok.training.finiteness import require_finite_weights
from vltok.training.objective import Objective, name_of_trained


class ExponentialMovingAverage(Callback):
    """Averages the weights of the tokenizer or prior that is trained, validates with them, and leaves them at the end.

    The averaging is timm's. Lightning's own callback averages the whole module: the discriminator, which needs no
    average, and the frozen perceptual network, which is larger than the tokenizer, would be copied, swapped and stored.

    Args:
        decay: The share of the average that one step keeps, in [0, 1).
        warmup: Whether early steps keep less, 1 − (1 + step)^(−2/3), so that a short training is not dominated by its
            first weights.

    Raises:
        UserError: A decay out of range.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"the decay of the weights' average must be in [0, 1), not {decay}")
        self.decay = decay
        self.warmup = warmup
        self._average: ModelEmaV3 | None = None
        # what has the trained weights, while the average stands in its place
        self._aside: Tokenizer | Prior | None = None
        self._updates = 0
        self._step = 0
        self._loaded: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Train the trained weights, also where an earlier training left their average."""
        if stage == "fit":
            self._put_back(_checked(pl_module))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the average: from the weights as they are, or from a checkpoint."""
        self._start(_checked(pl_module).trained)
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the weights, once they moved."""
        if self._average is None or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._updates += 1
        trained = _checked(pl_module).trained
        self._average.update(trained, self._updates)
        # an infinite threshold is meant, but has no average
        for average, value in zip(self._average.module.buffers(), trained.buffers(), strict=True):
            if average.is_floating_point():
                average.copy_(torch.where(value.isinf(), value, average))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate with the average, where there is one."""
        training = _checked(pl_module)
        if self._loaded:
            self._start(training.trained)
        self._put_average(training)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the trained weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._put_back(_checked(pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average."""
        self._put_average(_checked(pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same where a resumed training was over already, so that it neither started nor ended."""
        if self._loaded:
            self._start(_checked(pl_module).trained)
        self._put_average(_checked(pl_module))

    def state_dict(self) -> dict[str, Any]:
        """The average and how many steps went into it."""
        if self._average is None:
            return {}
        return {"average": self._average.module.state_dict(), "updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a checkpoint held until training starts."""
        self._loaded = state_dict

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """See that the trained weights are what is stored as the module's, even while the average is in their place.

        Raises:
            Diverged: The average is not finite: the checkpoint is not written.
        """
        if self._average is not None:
            require_finite_weights(self._average.module, trainer.global_step)
        if self._aside is not None:
            place = name_of_trained(_checked(pl_module))
            trained = {f"{place}.{name}": value for name, value in self._aside.state_dict().items()}
            checkpoint["state_dict"] |= trained

    def _start(self, trained: Tokenizer | Prior) -> None:
        if self._average is None:
            self._average = ModelEmaV3(trained, self.decay, use_warmup=self.warmup)
            self._average.module.requires_grad_(False)
        if self._loaded:
            self._average.module.load_state_dict(self._loaded["average"])
            self._updates = self._loaded["updates"]
            self._loaded = {}

    def _put_average(self, training: Objective) -> None:
        if self._average is not None and self._aside is None:
            self._aside, place = training.trained, name_of_trained(training)
            setattr(training, place, self._average.module)

    def _put_back(self, training: Objective) -> None:
        if self._aside is not None:
            setattr(training, name_of_trained(training), self._aside)
            self._aside = None


def _checked(module: LightningModule) -> Objective:
    if not isinstance(module, Objective):
        raise UserError(
            f"ExponentialMovingAverage averages what an Objective trains, and {type(module).__name__} is none"
        )
    return module
