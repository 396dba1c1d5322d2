"""Trainings whose batch one process has, or two share; the two processes run them all in one go."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, distributed
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from vltok.codes import Codes, CodeSpec
from vltok.interfaces import Budget, Gate, Perceptual, Prior, Quantizer
from vltok.losses.adversarial import PatchGAN
from vltok.pictures.images import ImageBatch
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.global_local import GlobalLocal
from vltok.priors.raster_scan import RasterScan
from vltok.priors.sequence import SequencePrior
from vltok.processes import batch_mean, rows_of_all, sum_over_processes
from vltok.testing.modules import pictures
from vltok.tokenizers.budgets import CodeLengthBudget, RatioBudget
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gain_gate import GainGate
from vltok.tokenizers.gates import EntropyGate, FeatureGate, FixedGate, RandomGate
from vltok.tokenizers.quantizers import (
    CosineVectorQuantizer,
    EMAVectorQuantizer,
    GumbelQuantizer,
    VectorQuantizer,
)
from vltok.tokenizers.residual_quantizer import ResidualQuantizer
from vltok.tokenizers.surprise_gate import SurpriseGate
from vltok.training import PriorTraining, TokenizerTraining
from vltok.training.finiteness import Diverged, FiniteWatch

from ..tiny_priors import tiny_prior

#: Of nine, the images of each process: more than a half, and less.
SHARES = (slice(0, 6), slice(6, 9))
RATIOS = {4: 0.5, 8: 0.5}
Training = TokenizerTraining | PriorTraining
Case = tuple[Training, ImageBatch | Codes]


def _half_flipped(grains: Tensor) -> Tensor:
    """Lessons without chance: the choice, and two maps that flip a half of the regions each."""
    other = 1 - grains
    half = (torch.arange(grains.shape[1])[:, None] + torch.arange(grains.shape[2])) % 2 == 0
    return torch.stack([grains, torch.where(half, other, grains), torch.where(half, grains, other)])


def _gain_gate() -> Gate:
    gate = GainGate(8, RATIOS, taught_share=1.0)
    gate.lessons = _half_flipped
    return gate


GATES: dict[str, Callable[[], Gate]] = {
    "feature": lambda: FeatureGate(8, 2, norm_groups=2, noise=0.0),
    "gain": _gain_gate,
    "surprise": lambda: SurpriseGate(8, 16, RATIOS),
    "entropy": lambda: EntropyGate(RATIOS, thresholds=[2.4]),
    "random": lambda: RandomGate(RATIOS),
    "fixed": lambda: FixedGate(1, 2),
}
BUDGETS: dict[str, Callable[[], Budget | None]] = {
    "ratio, image": lambda: RatioBudget(RATIOS, over="image"),
    "ratio, batch": lambda: RatioBudget(RATIOS, over="batch"),
    "code-length, image": lambda: CodeLengthBudget(40.0, [4, 8], over="image"),
    "code-length, batch": lambda: CodeLengthBudget(40.0, [4, 8], over="batch"),
    "none": lambda: None,
}
QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "vq": lambda: VectorQuantizer(16, 4),
    "ema-vq": lambda: EMAVectorQuantizer(16, 4, restart=False),
    "ema-vq, restart": lambda: EMAVectorQuantizer(16, 4),
    "cosine-vq": lambda: CosineVectorQuantizer(16, 4),
    "gumbel": lambda: GumbelQuantizer(16, 4, noise=0.0),
    "residual": lambda: ResidualQuantizer(EMAVectorQuantizer(16, 4, restart=False), 2),
}


class SquaredError(Perceptual):
    """Any distance that is a mean over images."""

    def load(self) -> None: ...

    def forward(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        return (reconstructions - images).square().mean()


def _tokenizer(gate: str, budget: str, quantizer: str, adversary: bool = False) -> Callable[[], Case]:
    def build() -> Case:
        torch.manual_seed(0)
        tokenizer = DQVAE(
            PatchEncoder([4, 8], width=8, blocks=1, channels=8),
            GATES[gate](),
            QUANTIZERS[quantizer](),
            PixelShuffleDecoder(4, channels=8, width=8, blocks=1),
            BUDGETS[budget](),
        )
        discriminator = PatchGAN(4, 2) if adversary else None
        training = TokenizerTraining(tokenizer, SquaredError(), discriminator, discriminator_weight_max=None).train()
        # places that are drawn anew for each image are others on each process
        tokenizer.gate.train(gate != "random")
        images = pictures(9, 32, 32)
        return training, ImageBatch(images, None, [str(index) for index in range(9)])

    return build


def _prior(kind: type[Prior], factors: tuple[int, ...], **options: object) -> Callable[[], Case]:
    def build() -> Case:
        torch.manual_seed(0)
        prior = tiny_prior(kind, 8, factors, (2, 2), **options)
        # from images of coarse codes to images of fine ones
        grains = torch.arange(9)[:, None, None] > torch.tensor([[1, 5], [4, 7]])
        grains = grains.long() if len(factors) > 1 else torch.zeros(9, 2, 2, dtype=torch.long)
        side = factors[-1] // factors[0]
        ids = grains.repeat_interleave(side, 1).repeat_interleave(side, 2) * 3
        return PriorTraining(prior).train(), Codes.from_code_map(ids, grains, CodeSpec(8, factors, (2, 2)))

    return build


#: Those that a whole batch and its shares must train alike: each part meets each part of the other kinds.
CASES: dict[str, Callable[[], Case]] = {
    f"{gate}, {budget}, {quantizer}": _tokenizer(gate, budget, quantizer)
    for (gate, budget), quantizer in zip(
        itertools.product(GATES, BUDGETS), itertools.cycle(("vq", "ema-vq")), strict=False
    )
}
CASES |= {
    "cosine-vq": _tokenizer("feature", "ratio, batch", "cosine-vq"),
    "gumbel": _tokenizer("feature", "ratio, batch", "gumbel"),
    "residual": _tokenizer("feature", "ratio, batch", "residual"),
    "discriminator": _tokenizer("feature", "ratio, batch", "vq", adversary=True),
    "dq-transformer": _prior(DQTransformer, (4, 8)),
    "dq-transformer, granularity-mean": _prior(DQTransformer, (4, 8), position_loss="granularity-mean"),
    "global-local": _prior(GlobalLocal, (4, 8)),
    "raster-scan": _prior(RasterScan, (4, 8)),
    "sequence": _prior(SequencePrior, (4,)),
}
#: Of these, those that Lightning's own trainer runs.
FITTED = ("discriminator", "raster-scan")
#: One that draws, so that the two need only agree.
RESTARTS = _tokenizer("feature", "ratio, batch", "ema-vq, restart")


def as_if_by_a_trainer(training: Training) -> None:
    """Let a training step run by itself."""
    training.trainer = SimpleNamespace(
        global_step=0, log_every_n_steps=1, optimizers=[SimpleNamespace(param_groups=[{"lr": 1.0}])]
    )
    training.log = training.log_dict = lambda *_, **__: None


def train(build: Callable[[], Case], share: slice = slice(None)) -> dict[str, Tensor]:
    """The gradient of one step with a share of the batch, averaged over processes, and the buffers after it."""
    training, batch = build()
    as_if_by_a_trainer(training)
    training.training_step(_part(batch, share), 0).backward()
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    found = {f"buffer {name}": value.clone() for name, value in training.named_buffers()}
    for name, parameter in training.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found[f"gradient {name}"] = sum_over_processes(gradient) / processes
    return {name: value for name, value in found.items() if "usage" not in name}


def _part(batch: ImageBatch | Codes, share: slice) -> ImageBatch | Codes:
    if isinstance(batch, Codes):
        return batch[share]
    return ImageBatch(batch.images[share], None, batch.keys[share])


class Gradients(Callback):
    """Keeps the gradient of the last step."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.found = {name: parameter.grad.clone() for name, parameter in pl_module.named_parameters()}


def fit(build: Callable[[], Case], share: slice = slice(None), processes: int = 1) -> dict[str, Tensor]:
    """What Lightning's own trainer logs when it validates a share of the batch, and the gradient when it trains."""
    training, batch = build()
    gradients = Gradients()
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_steps=1,
        callbacks=[gradients],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loader = DataLoader([_part(batch, share)], batch_size=None)
    (logged,) = trainer.validate(training, loader, verbose=False)
    trainer.fit(training, loader)
    return {**{name: torch.tensor(value) for name, value in logged.items()}, **gradients.found}


def one_of_two(rank: int, folder: str) -> None:
    """Do all that two processes do, and write down what came of it."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: dict[str, object] = {name: train(build, SHARES[rank]) for name, build in CASES.items()}
    torch.manual_seed(rank)
    found["restarts"] = train(RESTARTS, SHARES[rank])
    # as torchrun does
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0")
    os.environ.update(TORCHELASTIC_RUN_ID="shared", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    found |= {f"{name}, fitted": fit(CASES[name], SHARES[rank], 2) for name in FITTED}
    # one has all its regions fine, the other none: the batch has what was asked for
    assignment = torch.zeros(1, 2, 3, 3)
    assignment[:, rank] = 1
    found["met budget"] = RatioBudget(RATIOS, over="batch")(assignment)
    found["mean"] = batch_mean(torch.arange(2.0)[: rank + 1, None] + rank, together=True)
    found["rows"] = rows_of_all(torch.full((rank + 1, 2), float(rank)))
    watch = FiniteWatch()
    watch.note(3, {"pixel": torch.tensor(0.0), "budget": torch.tensor(torch.nan if rank else 0.0)})
    try:
        watch.require_finite()
    except Diverged as error:
        found["diverged"] = (str(error), type(error).__name__)
    distributed.destroy_process_group()
    torch.save(found, Path(folder) / f"{rank}.pt")
