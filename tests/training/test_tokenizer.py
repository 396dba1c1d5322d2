"""Training a tokenizer: losses, both sides' gradients, the learning rate, errors, precision, resuming."""

import copy
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from vltok.errors import UserError
from vltok.interfaces import Perceptual
from vltok.losses.adversarial import PatchGAN
from vltok.tokenizers.budgets import RatioBudget
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import EntropyGate, FeatureGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer, VectorQuantizer
from vltok.training import TokenizerTraining

HALF = {4: 0.5, 8: 0.5}


class FrozenFeatures(Perceptual):
    """A perceptual distance by a frozen convolution, which is there once it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.features: nn.Module | None = None

    def load(self) -> None:
        if self.features is None:
            self.features = nn.Conv2d(3, 4, kernel_size=3).requires_grad_(False)
            nn.init.constant_(self.features.weight, 0.1)

    def forward(self, reconstructions, images):
        return (self.features(reconstructions).float() - self.features(images).float()).square().mean()


class Recorder(Callback):
    """Keeps what each step logged, the weights after it, and its gradients."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.weights: list[dict[str, torch.Tensor]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in pl_module.named_parameters()
            if parameter.grad is not None
        }
        self.gradients.append(gradients)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.weights.append(copy.deepcopy(pl_module.state_dict()))


def dq_vae(gate: str, quantizer: str = "vq") -> DQVAE:
    """A DQ-VAE of a few thousand parameters, F = {4, 8}."""
    return DQVAE(
        encoder=PatchEncoder([4, 8], width=32, blocks=1, channels=32),
        gate=FeatureGate(32, 2) if gate == "feature" else EntropyGate(HALF),
        quantizer=VectorQuantizer(64, 16) if quantizer == "vq" else EMAVectorQuantizer(64, 16),
        decoder=PixelShuffleDecoder(4, channels=32, width=32, blocks=1),
        budget=RatioBudget(HALF) if gate == "feature" else None,
    )


def plain(*parts: nn.Module, **options) -> TokenizerTraining:
    """A training whose learning rate is what is written."""
    return TokenizerTraining(*parts, **{"learning_rate": 1e-3, "scale_learning_rate": False, **options})


@pytest.mark.parametrize(("gate", "quantizer"), [("feature", "vq"), ("entropy", "ema-vq")])
def test_a_dq_vae_learns_and_every_parameter_gets_a_gradient(fit, gate, quantizer):
    recorder = Recorder()
    training = plain(dq_vae(gate, quantizer), FrozenFeatures(), PatchGAN(width=8, layers=2), learning_rate=5e-3)
    fit(training, callbacks=[recorder], max_epochs=10)
    epochs = torch.tensor([step["pixel"] for step in recorder.logged]).view(10, 4).mean(dim=1)
    assert epochs[-1] < 0.85 * epochs[0], epochs
    trained = {name for name, parameter in training.named_parameters() if parameter.requires_grad}
    touched = {name for step in recorder.gradients for name, gradient in step.items() if gradient.abs().sum() > 0}
    assert trained == touched
    names = {"loss", "psnr", "code_length", "ratio_8", "ratio_4", "codebook_usage", "learning_rate"}
    assert names | {"pixel", "perceptual", "quantization", "adversarial", "discriminator"} <= recorder.logged[-1].keys()


def test_the_total_is_the_weighted_sum(fit, tokenizer):
    recorder = Recorder()
    training = plain(
        tokenizer, FrozenFeatures(), PatchGAN(8, 2), pixel_weight=0.7, perceptual_weight=0.3, discriminator_weight=0.5
    )
    fit(training, callbacks=[recorder], max_steps=2)
    logged = recorder.logged[-1]
    expected = 0.7 * logged["pixel"] + 0.3 * logged["perceptual"] + logged["quantization"]
    expected += logged["adversarial_weight"] * logged["adversarial"]
    assert logged["loss"] == pytest.approx(expected, rel=1e-5)
    assert 0 < logged["adversarial_weight"] <= 0.75


def test_the_adversarial_gradient_at_the_last_layer_equals_the_reconstructions(fit, tokenizer, images):
    """What the adaptive weight is for (VQGAN, eq. 7), read off the gradients that the optimizer gets."""
    tokenizer.eval()
    training = plain(tokenizer, discriminator=PatchGAN(8, 2).eval(), discriminator_weight_max=None)
    alone = plain(copy.deepcopy(tokenizer), scale_learning_rate=False)
    recorders = Recorder(), Recorder()
    for each, recorder in zip((training, alone), recorders, strict=True):
        fit(each, callbacks=[recorder], max_steps=1)
    both, reconstruction = (recorder.gradients[0]["tokenizer.out.weight"] for recorder in recorders)
    # the epsilon below the ratio takes its share
    expected = reconstruction.norm().item() - 1e-4 * recorders[0].logged[0]["adversarial_weight"]
    assert (both - reconstruction).norm().item() == pytest.approx(expected, rel=1e-3)
    assert expected > 0


def test_the_sides_do_not_meet(fit, tokenizer):
    """The tokenizer's loss gives the discriminator no gradient, nor the discriminator's the tokenizer."""
    recorder = Recorder()
    discriminator = PatchGAN(8, 2).eval()
    training = plain(copy.deepcopy(tokenizer).eval(), discriminator=discriminator, discriminator_weight=0.0)
    start = copy.deepcopy(training)
    fit(training, callbacks=[recorder], max_steps=1)
    batch = next(iter(training.trainer.train_dataloader))
    output = start.tokenizer(batch.images)
    ((output.reconstruction - batch.images).abs().mean() + output.losses["quantization"]).backward()
    real, fake = (start.discriminator(each) for each in (batch.images, output.reconstruction.detach()))
    (((1 - real).relu().mean() + (1 + fake).relu().mean()) / 2).backward()
    for name, parameter in start.named_parameters():
        torch.testing.assert_close(recorder.gradients[0][name], parameter.grad, msg=name)


def test_the_discriminator_comes_in_at_its_step(fit, tokenizer):
    recorder = Recorder()
    training = plain(tokenizer, discriminator=PatchGAN(8, 2), discriminator_start=2)
    fit(training, callbacks=[recorder], max_steps=4)
    assert ["discriminator" in step for step in recorder.logged] == [False, False, True, True]
    first = "discriminator.main.0.weight"
    assert torch.equal(recorder.weights[0][first], recorder.weights[1][first])
    assert not torch.equal(recorder.weights[1][first], recorder.weights[2][first])


def test_the_learning_rate_scales_with_the_images_of_a_step(fit, tokenizer, loader):
    recorder = Recorder()
    training = TokenizerTraining(tokenizer, learning_rate=1e-5, warmup_steps=2)
    fit(training, loader(batch_size=4), callbacks=[recorder], max_steps=3, accumulate_grad_batches=2, max_epochs=2)
    rates = [step["learning_rate"] for step in recorder.logged]
    assert rates == pytest.approx([0, 0, 4e-5, 4e-5, 8e-5, 8e-5])


def test_warm_up_in_epochs_and_a_cosine_to_the_end(fit, tokenizer):
    recorder = Recorder()
    training = plain(tokenizer, warmup_epochs=0.5, schedule="cosine", learning_rate_floor=0.25)
    fit(training, callbacks=[recorder], max_epochs=2)
    rates = [step["learning_rate"] / 1e-3 for step in recorder.logged]
    assert rates == pytest.approx([0, 0.5, 1, 0.933, 0.75, 0.5, 0.25, 0.25], abs=1e-3)


def test_gradients_of_each_side_are_clipped_alone(fit, tokenizer):
    recorder = Recorder()

    class After(Callback):
        """Clipping comes behind Lightning's last hook: look at what Adam made of the first gradients."""

        norms: list[float]

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            adam = trainer.optimizers[0]
            states = [
                [adam.state[parameter]["exp_avg"] for parameter in group["params"]] for group in adam.param_groups
            ]
            self.norms = [nn.utils.get_total_norm(state).item() for state in states]

    after = After()
    training = plain(tokenizer, discriminator=PatchGAN(8, 2))
    fit(training, callbacks=[recorder, after], max_steps=1, gradient_clip_val=1e-3)
    # Adam's first average holds 1 − β₁ = 0.5 of the gradient
    assert after.norms == pytest.approx([5e-4, 5e-4], rel=1e-3)
    raw = nn.utils.get_total_norm(recorder.gradients[0].values()).item()
    assert raw > 1e-2


def test_a_loss_that_is_not_finite_stops_the_training(fit, tokenizer, loader, tmp_path):
    batches = loader(shuffle=False)
    batches.dataset[9] = torch.full((3, 32, 32), float("nan"))
    checkpoints = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(UserError, match=r"step 2 \(not finite: pixel, .*loss\)"):
        training = plain(tokenizer, calibration_batches=1)
        fit(training, batches, callbacks=[checkpoints], max_epochs=1, enable_checkpointing=True)
    written = sorted(Path(tmp_path / "checkpoints").iterdir())
    assert [path.name for path in written] == ["epoch=0-step=1.ckpt", "epoch=0-step=2.ckpt"]
    for path in written:
        assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["state_dict"].values())


def test_broken_weights_are_not_written(fit, tokenizer, tmp_path):
    class Break(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            pl_module.tokenizer.out.weight.data[0] = float("nan")

    checkpoints = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=1)
    for callbacks in ([Break()], [Break(), checkpoints]):
        with pytest.raises(UserError, match=r"after step 1 \((tokenizer\.)?out\.weight"):
            training = plain(copy.deepcopy(tokenizer))
            fit(training, callbacks=callbacks, max_steps=1, enable_checkpointing=len(callbacks) > 1)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_bfloat16_learns_like_single_precision(fit, tokenizer):
    figures = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        recorder = Recorder()
        training = plain(copy.deepcopy(tokenizer), FrozenFeatures(), PatchGAN(8, 2))
        fit(training, callbacks=[recorder], max_steps=4, precision=precision)
        assert all(value.dtype != torch.bfloat16 for value in training.state_dict().values())
        figures.append([step["loss"] for step in recorder.logged])
    assert figures[1] == pytest.approx(figures[0], rel=0.05)


def test_channels_last_changes_no_number(fit, tokenizer):
    figures = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        recorder = Recorder()
        training = plain(copy.deepcopy(tokenizer), FrozenFeatures(), PatchGAN(8, 2), channels_last=channels_last)
        fit(training, callbacks=[recorder], max_steps=4)
        for layer in (training.tokenizer.into, training.discriminator.main[0], training.perceptual.features):
            assert layer.weight.is_contiguous(memory_format=training.memory_format)
        figures.append([step["loss"] for step in recorder.logged])
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)


def test_a_compiled_training_gives_the_same_losses(fit, tokenizer, monkeypatch):
    from vltok.training import compilation

    figures = []
    for compiled in (False, True):
        torch.manual_seed(0)
        recorder = Recorder()
        training = plain(copy.deepcopy(tokenizer), discriminator=PatchGAN(8, 2), compile=compiled)
        monkeypatch.setattr(
            "vltok.training.tokenizer.compile_tokenizer",
            lambda tokenizer: compilation.compile_tokenizer(tokenizer, backend="aot_eager"),
        )
        fit(training, callbacks=[recorder], max_steps=3)
        figures.append([step["loss"] for step in recorder.logged])
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)


@pytest.mark.usefixtures("unchecked")  # checks of shapes are slow to trace
def test_blocks_that_are_recomputed_keep_less_and_give_the_same_gradients(fit, monkeypatch):
    from vltok.training import compilation

    monkeypatch.setattr(
        "vltok.training.tokenizer.compile_tokenizer",
        lambda tokenizer: compilation.compile_tokenizer(tokenizer, backend="aot_eager"),
    )
    whole = dq_vae("feature")
    found, kept = [], []
    for form in ({}, {"checkpointing": True}, {"checkpointing": True, "compile": True}):
        torch.manual_seed(0)
        recorder = Recorder()
        training = plain(copy.deepcopy(whole), discriminator=PatchGAN(8, 2), **form)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: (sizes.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        ):
            fit(training, callbacks=[recorder], max_steps=2)
        found.append(recorder.gradients)
        kept.append(sum(sizes))
    for gradients in found[1:]:
        torch.testing.assert_close(gradients, found[0], rtol=1e-4, atol=1e-5)
    assert kept[1] < kept[0]


def test_a_tokenizer_without_blocks_cannot_recompute_them(tokenizer):
    with pytest.raises(UserError, match=r"model.checkpointing: TinyTokenizer has no blocks .* false"):
        plain(tokenizer, checkpointing=True)


def test_parts_are_calibrated_once_on_training_images(fit, tokenizer, loader):
    training = plain(tokenizer, calibration_batches=2)
    trainer = fit(training, loader(batch_size=4), max_steps=1)
    first = torch.stack([batch.images.mean() for batch in loader(batch_size=4)][:2]).mean()
    torch.testing.assert_close(tokenizer.brightness.mean, first)
    assert tokenizer.brightness.batches == 2
    trainer = fit(training, loader(count=8, batch_size=2), max_steps=1)
    assert trainer.global_step == 1
    torch.testing.assert_close(tokenizer.brightness.mean, first)


def test_validation_measures_the_same(fit, tokenizer, loader):
    trainer = fit(plain(tokenizer, FrozenFeatures()), validation=loader(count=10, batch_size=4), max_steps=4)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
    names = [
        "loss",
        "psnr",
        "code_length",
        "ratio_8",
        "ratio_4",
        "codebook_usage",
        "pixel",
        "perceptual",
        "quantization",
    ]
    assert metrics.keys() == {f"val_{name}" for name in names}
    tokenizer.eval()
    with torch.no_grad():
        images = torch.stack(list(loader(count=10).dataset))
        output = tokenizer(images)
    assert metrics["val_pixel"] == pytest.approx((output.reconstruction - images).abs().mean().item(), rel=1e-5)
    assert metrics["val_codebook_usage"] == len(output.codes.ids.unique()) / 16
    assert metrics["val_code_length"] == output.codes.lengths.float().mean().item()


def test_checkpoints_leave_out_what_is_frozen_and_resume_exactly(fit, tokenizer, loader, tmp_path):
    """Two epochs at a stretch end with the same weights as one, a checkpoint, and one more by a new process."""

    def build() -> TokenizerTraining:
        torch.manual_seed(0)
        parts = copy.deepcopy(tokenizer), FrozenFeatures(), PatchGAN(8, 2)
        return plain(*parts, warmup_steps=6, discriminator_start=2)

    def train(epochs: int, name: str, ckpt_path=None) -> TokenizerTraining:
        training = build()
        saving = ModelCheckpoint(tmp_path / name, filename="end", save_on_train_epoch_end=True)
        fit(
            training,
            loader(shuffle=True),
            callbacks=[saving],
            max_epochs=epochs,
            enable_checkpointing=True,
            ckpt_path=ckpt_path,
        )
        return training

    whole = train(2, "whole")
    train(1, "half")
    torch.manual_seed(1234)
    resumed = train(2, "resumed", ckpt_path=tmp_path / "half" / "end.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    state = torch.load(tmp_path / "half" / "end.ckpt", weights_only=True)["state_dict"]
    assert not any(name.startswith("perceptual") for name in state)
    assert any(name.startswith("discriminator") for name in state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, not 0"),
        ({"calibration_batches": 0}, "calibration_batches"),
        ({"warmup_steps": 5, "warmup_epochs": 1.0}, "not both"),
    ],
)
def test_what_makes_no_sense_is_an_error(tokenizer, options, message):
    with pytest.raises(UserError, match=message):
        plain(tokenizer, **options)
