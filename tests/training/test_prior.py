"""Training a prior: what decays, what is measured, what a checkpoint goes on with."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vltok.codes import Codes, CodeSpec
from vltok.drawing.batches import BatchDrawing
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import SamplingOptions
from vltok.errors import UserError
from vltok.interfaces import Prior, PriorLoss, SamplingConfig
from vltok.measures.likelihood import likelihood_figures
from vltok.nn.transformer import Block
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.raster_scan import RasterScan
from vltok.training import PriorTraining
from vltok.training.prior import split_by_decay

from ..tiny_priors import tiny_prior

SPEC = CodeSpec(8, (4, 8), (2, 2))


def tiny(**options) -> DQTransformer:
    return tiny_prior(DQTransformer, SPEC.codebook_size, SPEC.factors, (2, 2), **options)


def codes_of(count: int, seed: int = 0, labels: Tensor | None = None) -> Codes:
    """Codes of which each is the number of its granularity, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    grains = torch.randint(2, (count, 2, 2), generator=generator)
    code_map = grains.repeat_interleave(2, 1).repeat_interleave(2, 2) + 3
    return Codes.from_code_map(code_map, grains, SPEC, labels)


@pytest.fixture
def batches() -> DataLoader:
    """Batches of different sizes."""
    return DataLoader([codes_of(5, 0), codes_of(2, 1), codes_of(3, 2)], batch_size=None)


@pytest.fixture
def train(fit: Callable[..., Trainer], batches: DataLoader) -> Callable[..., Trainer]:
    def run(training: PriorTraining, **options) -> Trainer:
        return fit(training, batches, batches, **{"max_epochs": 1, **options})

    return run


class Counting(Prior):
    """Knows how often each code occurs, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.conditioning = Conditioning()
        self.logits = nn.Parameter(torch.zeros(SPEC.codebook_size))

    @property
    def spec(self) -> CodeSpec:
        return SPEC

    def loss(self, codes: Codes) -> PriorLoss:
        loss = -self.logits.log_softmax(0)[codes.ids].mean()
        return PriorLoss(loss, {"content": loss})

    def drawing(self, sampling: SamplingOptions) -> BatchDrawing:
        return BatchDrawing(lambda images: codes_of(len(images)))


def test_matrices_decay_and_nothing_else() -> None:
    prior = tiny()
    decayed, others = split_by_decay(prior)
    assert {id(parameter) for parameter in decayed} == {
        id(module.weight) for module in prior.modules() if isinstance(module, nn.Linear)
    }
    assert len(decayed) + len(others) == len(list(prior.parameters()))
    training = PriorTraining(prior, weight_decay=0.3)
    training.trainer = Trainer(accelerator="cpu", logger=False)
    decays, does_not = training.configure_optimizers().param_groups
    assert (decays["weight_decay"], does_not["weight_decay"]) == (0.3, 0.0)
    assert decays["betas"] == (0.9, 0.95)


def test_training_learns(train: Callable[..., Trainer]) -> None:
    prior = tiny()
    with torch.no_grad():
        before = float(prior.loss(codes_of(4, 9)).total)
    trainer = train(PriorTraining(prior, learning_rate=1e-2), max_epochs=12)
    with torch.no_grad():
        assert float(prior.loss(codes_of(4, 9)).total) < 0.7 * before
    logged = trainer.callback_metrics
    assert {"loss", "position", "content", "learning_rate", "codes_per_second"} <= set(logged)
    assert logged["codes_per_second"] > 0


def test_gradients_are_clipped_in_mixed_precision(train: Callable[..., Trainer]) -> None:
    assert train(PriorTraining(tiny()), precision="bf16-mixed", gradient_clip_val=1.0).global_step == 3


def test_a_cosine_ends_with_the_training(train: Callable[..., Trainer]) -> None:
    rates: list[float] = []
    training = PriorTraining(Counting(), learning_rate=1.0, warmup_steps=2)
    start = training.on_train_batch_start

    def watched(batch: Codes, batch_idx: int) -> None:
        start(batch, batch_idx)
        rates.append(training.trainer.optimizers[0].param_groups[0]["lr"])

    training.on_train_batch_start = watched
    train(training, max_steps=6, max_epochs=2)
    assert rates == pytest.approx([0, 0.5, *((1 + math.cos(math.pi * step / 4)) / 2 for step in range(4))])


@pytest.mark.parametrize(
    "prior",
    [tiny(), tiny_prior(RasterScan, 8, (4, 8), (2, 2)), Counting()],
    ids=["a mean over tokens", "a sum over codes", "without counts"],
)
def test_every_token_counts_the_same(prior: Prior, batches: DataLoader, fit: Callable[..., Trainer]) -> None:
    """Batches of different sizes measure what one batch of all measures."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (logged,) = trainer.validate(PriorTraining(prior), batches, verbose=False)
    every = Codes.concatenate(list(batches))
    with torch.no_grad():
        loss = prior.eval().loss(every)
    nats = 0.0
    for name, mean in loss.parts.items():
        count = float(loss.counts.get(name, every.ids.numel()))
        assert logged[f"val_{name}"] == pytest.approx(float(mean), rel=1e-5)
        assert logged[f"val_{name}_per_code"] == pytest.approx(float(mean) * count / every.ids.numel(), rel=1e-5)
        nats += float(mean) * count
    assert logged["val_loss"] == pytest.approx(float(loss.total), rel=1e-5)
    assert logged["val_bits_per_code"] == pytest.approx(nats / math.log(2) / every.ids.numel(), rel=1e-5)
    assert logged["val_bits_per_image"] == pytest.approx(nats / math.log(2) / len(every), rel=1e-5)


def test_a_likelihood_of_nothing_says_nothing() -> None:
    assert likelihood_figures({}) == {}


def test_a_resumed_training_is_the_undisturbed_one(train: Callable[..., Trainer], tmp_path) -> None:
    """Dropout and label dropout go on with the random numbers where they stopped."""

    def training() -> PriorTraining:
        torch.manual_seed(1)
        return PriorTraining(tiny(dropout=0.3), schedule="constant")

    whole = training()
    train(whole, max_epochs=2)
    train(training(), max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    second = training()
    torch.manual_seed(2)
    train(second, max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
    for (name, expected), found in zip(whole.prior.named_parameters(), second.prior.parameters(), strict=True):
        assert torch.equal(expected, found), name


def test_a_loss_that_diverges_is_said(train: Callable[..., Trainer]) -> None:
    prior = Counting()
    with torch.no_grad():
        prior.logits[0] = torch.nan
    with pytest.raises(UserError, match=r"NaN or infinite at step 0 \(not finite: loss, content\)"):
        train(PriorTraining(prior))


@pytest.mark.parametrize(
    ("label", "remedy"), [(4, "set --model.prior.classes"), (-1, "leave images of unknown class out, or give them one")]
)
def test_a_label_that_the_prior_does_not_know_is_said(fit: Callable[..., Trainer], label: int, remedy: str) -> None:
    codes = replace(codes_of(3), labels=torch.tensor([0, label, 1]))
    with pytest.raises(UserError, match=f"have label {label}, but the prior knows 3 classes, from 0 to 2: {remedy}"):
        fit(PriorTraining(tiny(classes=3)), DataLoader([codes], batch_size=None), max_steps=1)


class Drawing(Callback):
    """Draws while training goes on, in the precision that it runs in, and outside of it."""

    def __init__(self) -> None:
        self.inside: list[Codes] = []
        self.outside: list[Codes] = []

    def on_train_batch_end(self, trainer: Trainer, training: PriorTraining, *_: object) -> None:
        with trainer.precision_plugin.forward_context():
            self.inside.append(self._draw(training))
        self.outside.append(self._draw(training))

    def _draw(self, training: PriorTraining) -> Codes:
        return training.prior.sample(4, SamplingConfig(), torch.Generator().manual_seed(0)).validate(SPEC)


def test_a_callback_draws_in_mixed_precision_and_training_takes_no_notice(train: Callable[..., Trainer]) -> None:
    drawing, weights = Drawing(), []
    for callbacks in ([], [drawing]):
        torch.manual_seed(0)
        prior = tiny(dropout=0.1)
        train(PriorTraining(prior, learning_rate=1e-2), precision="bf16-mixed", callbacks=callbacks)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in prior.parameters()]))
    assert torch.equal(*weights)
    assert len(drawing.inside) == 3
    assert all(inside.equal(outside) for inside, outside in zip(drawing.inside, drawing.outside, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative"),
        ({"learning_rate_floor": 2.0}, r"learning_rate_floor must be in \[0, 1\]"),
    ],
)
def test_numbers_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PriorTraining(Counting(), **options)


def test_attention_is_computed_by_the_kernel_that_is_asked_for() -> None:
    fresh = PriorTraining(tiny(), attention="sdpa")
    kernels = {module.kernel for module in fresh.prior.modules() if isinstance(module, Block)}
    assert kernels == {"sdpa"}
