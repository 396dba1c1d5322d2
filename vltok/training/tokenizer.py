"""Training a tokenizer, as a Lightning module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vltok.code_maps import entries
from vltok.errors import UserError
from vltok.interfaces import Adversarial, Discriminator, Perceptual, Tokenizer, TokenizerOutput
from vltok.losses.adversarial import (
    adaptive_weight,
    gradient_at,
    hinge_discriminator_loss,
    hinge_generator_loss,
    with_gradient,
)
from vltok.losses.perceptual import NoPerceptual
from vltok.measures.pixels import psnr
from vltok.nn.recomputing import recompute
from vltok.pictures.images import ImageBatch, ImageData
from vltok.processes import mean_over_processes
from vltok.training.calibration import calibrate
from vltok.training.compilation import compile_tokenizer
from vltok.training.finiteness import FiniteWatch, require_finite_weights, takes_fused
from vltok.training.monitoring import CodebookUsage, code_figures
from vltok.training.objective import Objective
from vltok.training.resuming import Resuming
from vltok.training.schedules import LearningRateSchedule, SchedulePlan
from vltok.training.suitability import check_images

#: Updates over which the codebook's usage is counted while training.
USAGE_WINDOW = 100


class TokenizerTraining(Objective):
    """Trains a tokenizer: pixel (l1) + perceptual + adversarial loss, and what the tokenizer itself adds.

    Each step runs the tokenizer once:

    ```
    images ── tokenizer ──► reconstruction ──► pixel, perceptual ──┐ adaptive ┌──► adversarial (frozen discriminator)
                  │               └──── detached ──► discriminator │  weight ◄┘
                  └──► its own losses (quantization, budget) ──► sum
    ```

    One Adam holds both sides, in two groups of parameters: Adam treats each parameter alone, so this equals two
    optimizers, and a step counts once. `trainer.gradient_clip_val` clips each group by itself.

    Args:
        tokenizer: What is trained.
        perceptual: The perceptual distance; null for none.
        discriminator: The adversary; null for none.
        learning_rate: The base learning rate. VQGAN's 4.5e-6 is for one image.
        scale_learning_rate: Whether the base rate is multiplied by the images of a step: batch × devices ×
            accumulated batches.
        betas: Adam's decay rates.
        pixel_weight: Weight of the mean absolute error of a pixel.
        perceptual_weight: Weight of the perceptual distance.
        discriminator_weight: Multiplies the adaptive weight of the adversarial loss.
        discriminator_weight_max: The most that the adaptive weight may be; null for no bound.
        discriminator_start: The step at which the discriminator and its loss come in.
        schedule: ``constant`` after the warm-up, or ``cosine``, which falls until training ends.
        warmup_steps: Steps over which the learning rate rises from 0.
        warmup_epochs: The same in epochs, which may be a fraction; only one of the two may be set.
        learning_rate_floor: The share of the learning rate at which a cosine stops falling.
        channels_last: Keep images and convolutions in the channels-last memory format.
        compile: Compile the tokenizer's forward pass with `torch.compile`.
        calibration_batches: Batches of training images on which parts that need it are calibrated before the first
            step.
        checkpointing: Recompute the tokenizer's blocks in the backward pass: less memory, a third more time.

    Raises:
        UserError: A number is out of range, or the tokenizer cannot be trained against a discriminator.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        perceptual: Perceptual | None = None,
        discriminator: Discriminator | None = None,
        learning_rate: float = 4.5e-6,
        scale_learning_rate: bool = True,
        betas: tuple[float, float] = (0.5, 0.9),
        pixel_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        discriminator_weight: float = 1.0,
        discriminator_weight_max: float | None = 0.75,
        discriminator_start: int = 0,
        schedule: Literal["constant", "cosine"] = "constant",
        warmup_steps: int = 0,
        warmup_epochs: float = 0.0,
        learning_rate_floor: float = 0.0,
        channels_last: bool = False,
        compile: bool = False,
        calibration_batches: int = 64,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if learning_rate <= 0:
            raise UserError(f"learning_rate must be positive, not {learning_rate}")
        if calibration_batches < 1:
            raise UserError(f"calibration_batches must be at least 1, not {calibration_batches}")
        if discriminator is not None and not isinstance(tokenizer, Adversarial):
            raise UserError(
                f"model.discriminator: {type(tokenizer).__name__} names no last layer, on which the adversarial loss "
                "is balanced (vltok.interfaces.Adversarial): set it to null"
            )
        if checkpointing and not recompute(tokenizer):
            raise UserError(
                f"model.checkpointing: {type(tokenizer).__name__} has no blocks that can be recomputed: set it to false"
            )
        self.tokenizer = tokenizer
        self.perceptual = NoPerceptual() if perceptual is None else perceptual
        self.discriminator = discriminator
        self.learning_rate = learning_rate
        self.scale_learning_rate = scale_learning_rate
        self.betas = betas
        self.pixel_weight = pixel_weight
        self.perceptual_weight = perceptual_weight
        self.discriminator_weight = discriminator_weight
        self.discriminator_weight_max = discriminator_weight_max
        self.discriminator_start = discriminator_start
        self.schedule_plan = SchedulePlan(schedule, warmup_steps, warmup_epochs, learning_rate_floor)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compiled = compile
        self.calibration_batches = calibration_batches
        self.to(memory_format=self.memory_format)
        size = tokenizer.spec.entries
        self.usage = CodebookUsage(size, window=USAGE_WINDOW, across_devices=False)
        self.validation_usage = CodebookUsage(size)
        self._schedule = LearningRateSchedule()
        self._watch = FiniteWatch()
        self._resuming = Resuming()

    @property
    def trained(self) -> Tokenizer:
        """The tokenizer."""
        return self.tokenizer

    @property
    def batches_calibrated_on(self) -> int:
        """Those of `calibration_batches`."""
        return self.calibration_batches

    def peak_rate(self, images: int) -> float:
        """The learning rate, times the images where `scale_learning_rate` is set."""
        return self.learning_rate * (images if self.scale_learning_rate else 1)

    def check_data(self, data: LightningDataModule) -> None:
        """See that the data is images that the tokenizer takes.

        Raises:
            UserError: It is not.
        """
        check_images(self.tokenizer, data)

    def figures(self) -> dict[str, float]:
        """None: what is known of a tokenizer is measured once it is trained."""
        return {}

    def setup(self, stage: str) -> None:
        """Get the perceptual network's weights, before the whole is moved to its device."""
        self.perceptual.load()
        self.perceptual.to(memory_format=self.memory_format)

    def configure_optimizers(self) -> Optimizer:
        """One Adam with a group for the tokenizer and one for the discriminator."""
        sides = (self.tokenizer, self.discriminator)
        groups = [{"params": list(side.parameters())} for side in sides if side is not None]
        fused = takes_fused(self.trainer)
        return torch.optim.Adam(groups, lr=self.learning_rate, betas=self.betas, fused=fused)

    def on_fit_start(self) -> None:
        """Calibrate what must be, and compile."""
        data = self.trainer.datamodule
        if isinstance(data, ImageData):
            batches = data.training_crops_dataloader()
        else:
            self.trainer.fit_loop.setup_data()
            batches = self.trainer.train_dataloader
        calibrate(self.tokenizer, self.trainer, batches, self.calibration_batches)
        if self.compiled:
            compile_tokenizer(self.tokenizer)

    def on_train_start(self) -> None:
        """Count the schedule in steps, now that the data is known; a resumed training draws on from here.

        Raises:
            UserError: The schedule or the strategy does not suit the data or the discriminator.
        """
        trainer = self.trainer
        schedule = self.schedule_plan.in_updates(
            trainer.num_training_batches, trainer.accumulate_grad_batches, trainer.estimated_stepping_batches
        )
        self._schedule = self._resuming.start(trainer, schedule)
        parallel = trainer.strategy.model
        late = self.discriminator is not None and self.discriminator_start > self.global_step
        if late and isinstance(parallel, DistributedDataParallel) and not parallel.find_unused_parameters:
            raise UserError(
                f"a discriminator that starts at step {self.discriminator_start} has no gradient before: on several "
                "devices this needs trainer.strategy: ddp_find_unused_parameters_true"
            )

    def on_train_batch_start(self, batch: ImageBatch, batch_idx: int) -> None:
        """Set the learning rate of the step."""
        rate = self.learning_rate * self._schedule(self.global_step)
        if self.scale_learning_rate:
            rate *= len(batch.images) * self.trainer.world_size * self.trainer.accumulate_grad_batches
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Float[Tensor, ""]:
        """The sum of both sides' losses, whose gradients do not meet."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        output = self.tokenizer(images)
        # of several processes each has its share of the whole batch's losses
        count = output.reconstruction.new_full((), len(images), dtype=torch.float32)
        share = count / mean_over_processes(count)
        adversary = self.discriminator if self.global_step >= self.discriminator_start else None
        # An adaptive weight is known only when both sides' gradients at the last layer are. Losses that look at copies
        # of the pixels are run backwards once, for the weight and for the step.
        pixels = output.reconstruction
        if adversary is not None:
            # of a leaf itself, PyTorch's hooks that count operations and memory cannot tell what a loss gives it
            pixels = pixels.detach().requires_grad_().view_as(pixels)
        distances, distance = self._distances(pixels, images)
        distance = share * distance
        own = _sum(output.losses)
        total = distance + own
        losses = {**distances, **output.losses}
        objective = total
        if adversary is not None and isinstance(self.tokenizer, Adversarial):
            fake = adversary(pixels)
            adversarial = share * hinge_generator_loss(fake)
            against = share * hinge_discriminator_loss(adversary(images), fake)
            gradients = gradient_at(pixels, distance), gradient_at(pixels, adversarial)
            weight = adaptive_weight(
                output.reconstruction,
                *gradients,
                self.tokenizer.last_layer,
                self.discriminator_weight,
                self.discriminator_weight_max,
            )
            losses |= {"adversarial": adversarial, "adversarial_weight": weight, "discriminator": against}
            total = total + weight * adversarial
            pull = gradients[0] + weight * gradients[1]
            objective = with_gradient(distance + weight * adversarial, output.reconstruction, pull) + own + against
        self._watch.note(self.global_step, {**losses, "loss": total})
        self._watch.look(self)
        self._log_training(output, images, {name: loss.detach() for name, loss in losses.items()}, total.detach())
        return objective

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Measure the same on held-out images, without the adversary."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        output = self.tokenizer(images)
        distances, distance = self._distances(output.reconstruction, images)
        self.validation_usage.update(entries(output.codes.occurring, self.tokenizer.spec).flatten())
        watched = {"loss": distance + _sum(output.losses), **self._figures(output, images)}
        # Lightning rounds the images of an average process down to a whole number, which these are
        weight = len(images) * self.trainer.world_size
        for figures, in_bar in ((watched, True), ({**distances, **output.losses}, False)):
            named = {f"val_{name}": figure for name, figure in figures.items()}
            self.log_dict(named, prog_bar=in_bar, batch_size=weight, sync_dist=True)
        self.log("val_codebook_usage", self.validation_usage, prog_bar=True, batch_size=len(images))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """See that the gradient is finite, on the CPU at once."""
        self._watch.note_gradient(self, optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip tokenizer and discriminator each by itself, so that neither holds back the other."""
        if not gradient_clip_val:
            return
        for group in optimizer.param_groups:
            if gradient_clip_algorithm == "value":
                nn.utils.clip_grad_value_(group["params"], gradient_clip_val)
            else:
                nn.utils.clip_grad_norm_(group["params"], gradient_clip_val)

    def on_train_end(self) -> None:
        """Let no broken weights out."""
        self._watch.require_finite()
        require_finite_weights(self.tokenizer, self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the perceptual network, which is frozen, and keep the state of each process's random numbers.

        A checkpoint that is not finite is not written.
        """
        self._watch.require_finite()
        require_finite_weights(self, self.global_step)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if not _frozen(name)}
        self._resuming.save(checkpoint, self._schedule)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fill in the perceptual network, and go on with the random numbers where training goes on."""
        checkpoint["state_dict"] |= {name: value for name, value in self.state_dict().items() if _frozen(name)}
        self._resuming.load(checkpoint)

    def _distances(self, reconstruction: Tensor, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The distances of the reconstruction by name, and their weighted sum."""
        distances = {
            "pixel": (reconstruction.float() - images.float()).abs().mean(),
            "perceptual": self.perceptual(reconstruction, images),
        }
        return distances, self.pixel_weight * distances["pixel"] + self.perceptual_weight * distances["perceptual"]

    @torch.no_grad()
    def _figures(self, output: TokenizerOutput, images: Tensor) -> dict[str, Tensor]:
        """What people watch: PSNR in dB, the mean code length, and the share of each granularity."""
        quality = {"psnr": psnr(output.reconstruction, images).mean()}
        return quality | code_figures(output.codes, self.tokenizer.spec.factors)

    def _log_training(self, output: TokenizerOutput, images: Tensor, losses: dict[str, Tensor], total: Tensor) -> None:
        self.usage.update(entries(output.codes.occurring, self.tokenizer.spec).flatten())
        watched = {"loss": total, **self._figures(output, images), "codebook_usage": self.usage.compute()}
        self.log_dict(watched, prog_bar=True, batch_size=len(images))
        # a number would be copied to the device, and the host would wait for that
        rate = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log_dict({**losses, "learning_rate": rate}, batch_size=len(images))


def _sum(losses: Mapping[str, Tensor]) -> Tensor | float:
    """The sum of losses in single precision."""
    return sum((loss.float() for loss in losses.values()), 0.0)


def _frozen(name: str) -> bool:
    """Whether a tensor of the state is the perceptual network's."""
    return name.startswith("perceptual.")
