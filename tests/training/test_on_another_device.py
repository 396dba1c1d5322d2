"""Training on a device that Python stands in for: nothing mixes devices, and no step waits without need."""

from collections.abc import Callable, Iterator

import pytest
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from tests.elsewhere import strategy_on, without_generator
from tests.tiny_priors import tiny_prior
from vltok.losses.adversarial import PatchGAN
from vltok.priors.dq_transformer import DQTransformer
from vltok.testing import PretendedDevice, random_codes
from vltok.testing.other_device import Cuda, another_device
from vltok.tokenizers.budgets import RatioBudget
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gain_gate import GainGate
from vltok.tokenizers.gates import EntropyGate, FeatureGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer
from vltok.training import ExponentialMovingAverage, PriorTraining, TokenizerTraining
from vltok.training.objective import Objective

RATIOS = {4: 0.5, 8: 0.5}


class Waits(Callback):
    """What the host waited for in each step."""

    def __init__(self, device: Cuda | PretendedDevice) -> None:
        self.device = device
        self.read_backs: list[list[str]] = []
        self.uploads: list[list[str]] = []
        self.parameters: list[Tensor] = []

    def on_train_batch_start(self, *_: object) -> None:
        self.device.forget()

    def on_train_batch_end(self, trainer: Trainer, training: Objective, *_: object) -> None:
        self.read_backs.append(list(self.device.read_backs))
        self.uploads.append(list(self.device.uploads))
        self.parameters = list(training.trained.parameters())


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda | PretendedDevice]:
    without_generator(monkeypatch)
    with another_device() as device:
        yield device


@pytest.fixture
def waits(
    device: Cuda | PretendedDevice, fit: Callable[..., Trainer], loader: Callable[..., DataLoader]
) -> Callable[..., Waits]:
    """Train there, and give back what was waited for in each step but those that are logged."""

    def train(training: Objective, batches: DataLoader | None = None) -> Waits:
        waits = Waits(device)
        batches = loader() if batches is None else batches
        callbacks = [ExponentialMovingAverage(0.5), waits]
        fit(
            training,
            batches,
            batches,
            accelerator="auto",
            strategy=strategy_on(device),
            callbacks=callbacks,
            log_every_n_steps=50,
            max_epochs=1,
        )
        assert waits.parameters[0].device.type == device.name and waits.parameters[0].isfinite().all()
        return waits

    return train


def dq_vae(gate, budget=None) -> DQVAE:
    return DQVAE(
        encoder=PatchEncoder([4, 8], width=8, blocks=1, channels=8),
        gate=gate,
        quantizer=EMAVectorQuantizer(size=16, dimension=4),
        decoder=PixelShuffleDecoder(factor=4, channels=8, width=8, blocks=1),
        budget=budget,
    )


@pytest.mark.parametrize("gate", ["feature", "gain", "entropy"])
def test_a_tokenizer_waits_for_nothing(gate: str, waits: Callable[..., Waits]) -> None:
    tokenizer = {
        "feature": lambda: dq_vae(FeatureGate(channels=8, granularities=2, norm_groups=4), RatioBudget(RATIOS)),
        "gain": lambda: dq_vae(GainGate(channels=8, ratios=RATIOS)),
        "entropy": lambda: dq_vae(EntropyGate(RATIOS)),
    }[gate]()
    discriminator = PatchGAN(layers=1, width=4) if gate == "feature" else None
    found = waits(TokenizerTraining(tokenizer, discriminator=discriminator, calibration_batches=2))
    assert not any(found.read_backs[1:]), found.read_backs
    assert not any(found.uploads[1:]), found.uploads


def test_a_prior_waits_for_nothing(waits: Callable[..., Waits]) -> None:
    prior = tiny_prior(DQTransformer, 8, (4, 8), (2, 2), dropout=0.1, classes=3)
    batches = DataLoader([random_codes(prior.spec, 4, seed, classes=3) for seed in range(3)], batch_size=None)
    found = waits(PriorTraining(prior), batches)
    assert not any(found.read_backs[1:]), found.read_backs
    assert not any(found.uploads[1:]), found.uploads
