"""Training a prior, as a Lightning module."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.optim import Optimizer

from vltok.codes import Codes
from vltok.devices import widest
from vltok.errors import UserError
from vltok.interfaces import Prior
from vltok.measures.likelihood import likelihood_figures, likelihood_sums
from vltok.nn.attention import Kernel, use_attention
from vltok.processes import mean_over_processes, sum_over_processes
from vltok.training.finiteness import FiniteWatch, require_finite_weights, takes_fused
from vltok.training.objective import Objective
from vltok.training.resuming import Resuming
from vltok.training.schedules import LearningRateSchedule, SchedulePlan
from vltok.training.speed import Speed
from vltok.training.suitability import check_codes


class PriorTraining(Objective):
    """Trains a prior on code sequences, by maximum likelihood.

    Every token of a batch counts the same, on whichever process it is. The batches of `trainer.accumulate_grad_batches`
    count the same as each other: with `data.token_budget` they have nearly as many tokens.

    Gradients are clipped by `trainer.gradient_clip_val`. The defaults are the paper's (supplementary 1).

    Args:
        prior: What is trained.
        learning_rate: AdamW's, after the warm-up.
        betas: AdamW's decay rates.
        weight_decay: AdamW's, of matrices alone: no biases, norms and embeddings.
        schedule: ``constant`` after the warm-up, or ``cosine``, which falls until training ends.
        warmup_steps: Steps over which the learning rate rises from 0.
        warmup_epochs: The same in epochs, which may be a fraction; only one of the two may be set.
        learning_rate_floor: The share of the learning rate at which a cosine stops falling.
        attention: What computes attention: ``xformers``, ``varlen`` (PyTorch's FlashAttention), ``sdpa`` (PyTorch's
            attention on padded images), or ``auto``, the first of these that has a kernel.
    """

    def __init__(
        self,
        prior: Prior,
        learning_rate: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.01,
        schedule: Literal["constant", "cosine"] = "cosine",
        warmup_steps: int = 0,
        warmup_epochs: float = 0.0,
        learning_rate_floor: float = 0.0,
        attention: Kernel = "auto",
    ) -> None:
        super().__init__()
        if learning_rate <= 0:
            raise UserError(f"learning_rate must be positive, not {learning_rate}")
        if weight_decay < 0:
            raise UserError(f"weight_decay must not be negative, but is {weight_decay}")
        self.prior = prior
        use_attention(prior, attention)
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay
        self.schedule_plan = SchedulePlan(schedule, warmup_steps, warmup_epochs, learning_rate_floor)
        self.speed = Speed()
        self._schedule = LearningRateSchedule()
        self._watch = FiniteWatch()
        self._resuming = Resuming()
        self._likelihood: Counter[str] = Counter()

    @property
    def trained(self) -> Prior:
        """The prior."""
        return self.prior

    @property
    def batches_calibrated_on(self) -> int:
        """None."""
        return 0

    def peak_rate(self, images: int) -> float:
        """The learning rate, whatever the images."""
        return self.learning_rate

    def check_data(self, data: LightningDataModule) -> None:
        """See that the data is codes for which the prior was built.

        Raises:
            UserError: It is not.
        """
        check_codes(self.prior, data)

    def figures(self) -> dict[str, float]:
        """How many codes it was trained on in a second."""
        return {"codes_per_second": self.speed.per_second()}

    def configure_optimizers(self) -> Optimizer:
        """AdamW with a group that decays and one that does not."""
        decayed, others = split_by_decay(self.prior)
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = takes_fused(self.trainer)
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, fused=fused)

    def on_train_start(self) -> None:
        """Count the schedule in steps, now that the data is known; a resumed training draws on from here.

        Raises:
            UserError: The schedule does not suit the data.
        """
        trainer = self.trainer
        schedule = self.schedule_plan.in_updates(
            trainer.num_training_batches, trainer.accumulate_grad_batches, trainer.estimated_stepping_batches
        )
        self._schedule = self._resuming.start(trainer, schedule)

    def on_before_batch_transfer(self, batch: Codes, dataloader_idx: int) -> Codes:
        """Look at the labels while they are on the host: on a GPU a wrong one would end the process.

        Raises:
            UserError: There are none, or the prior has no such class.
        """
        if self.prior.classes is not None:
            batch.require_labels(self.prior.classes)
        return batch

    def on_train_batch_start(self, batch: Codes, batch_idx: int) -> None:
        """Set the learning rate of the step."""
        self.speed.start()
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * self._schedule(self.global_step)

    def training_step(self, batch: Codes, batch_idx: int) -> Float[Tensor, ""]:
        """The prior's loss: of several processes this one's share, by its tokens, of that of all."""
        loss = self.prior.loss(batch)
        losses = {"loss": loss.total.detach(), **{name: part.detach() for name, part in loss.parts.items()}}
        self._watch.note(self.global_step, losses)
        self._watch.look(self)
        self.log_dict(losses, prog_bar=True, batch_size=len(batch))
        # a number would be copied to the device, and the host would wait for that
        rate = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("learning_rate", rate, batch_size=len(batch))
        weight = loss.total.new_full((), len(batch.ids)) if loss.weight is None else loss.weight.float()
        return loss.total * (weight / mean_over_processes(weight))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """See that the gradient is finite, on the CPU at once."""
        self._watch.note_gradient(self, optimizer)

    def on_train_batch_end(self, outputs: Any, batch: Codes, batch_idx: int) -> None:
        """Count the codes; batches of other devices have about as many."""
        self.speed.add(len(batch.ids) * self.trainer.world_size)
        self.log("codes_per_second", torch.tensor(self.speed.per_second()), prog_bar=True, batch_size=len(batch))

    def on_validation_start(self) -> None:
        """What validation takes is not training's."""
        self.speed.stop()
        self._likelihood.clear()

    def on_train_end(self) -> None:
        """Let no broken weights out."""
        self.speed.stop()
        self._watch.require_finite()
        require_finite_weights(self.prior, self.global_step)

    def validation_step(self, batch: Codes, batch_idx: int) -> None:
        """Measure the likelihood of held-out codes."""
        self._likelihood.update(likelihood_sums(self.prior.loss(batch), batch))

    def on_validation_epoch_end(self) -> None:
        """Log what was measured over all devices."""
        own = torch.tensor(list(self._likelihood.values()), dtype=widest(self.device), device=self.device)
        sums = dict(zip(self._likelihood, sum_over_processes(own).tolist(), strict=True))
        for name, figure in likelihood_figures(sums).items():
            self.log(f"val_{name}", figure, prog_bar=True, sync_dist=True)  # the same on all devices

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of each process's random numbers; a checkpoint that is not finite is not written."""
        self._watch.require_finite()
        require_finite_weights(self.prior, self.global_step)
        self._resuming.save(checkpoint, self._schedule)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the random numbers where training goes on."""
        self._resuming.load(checkpoint)


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that weight decay pulls to zero, which are matrices, and the others: biases, norms, embeddings."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
        (decayed if matrix else others).append(parameter)
    return decayed, others
