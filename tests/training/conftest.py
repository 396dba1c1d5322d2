"""A tiny tokenizer, and batches of crops of a photograph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import skimage
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vltok.codes import Codes, CodeSpec
from vltok.interfaces import Adversarial, Calibrated, Tokenizer, TokenizerOutput
from vltok.pictures.images import ImageBatch
from vltok.training import TokenizerTraining


class Brightness(nn.Module, Calibrated):
    """Measures the mean brightness of training images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("batches", torch.tensor(0))

    @property
    def calibrated(self) -> bool:
        return bool(self.batches > 0)

    def calibrate(self, batches) -> None:
        means = [images.mean() for images in batches]
        self.mean.copy_(torch.stack(means).mean())
        self.batches.fill_(len(means))


class TinyTokenizer(Tokenizer, Adversarial):
    """Patches of 4 × 4 pixels, quantized by sign; regions of 8 × 8 pixels are coarse by chance while training."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(3, 4, kernel_size=4, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.ConvTranspose2d(4, 3, kernel_size=4, stride=4)
        self.brightness = Brightness()

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(codebook_size=16, factors=(8, 4))

    @property
    def divisor(self) -> int:
        return 8

    @property
    def last_layer(self) -> Tensor:
        return self.out.weight

    def encode_batch(self, images: Tensor) -> Codes:
        training = self.training
        self.eval()
        with torch.no_grad():
            vectors, grains = self._vectors(images, torch.full((len(images),), 0.5))
        self.train(training)
        return self._codes(vectors, grains)

    def decode_batch(self, codes: Codes) -> Tensor:
        code_map = codes.to_code_map(self.spec)
        bits = torch.stack([(code_map >> bit) % 2 for bit in range(4)], dim=1)
        with torch.no_grad():
            return self.out(bits * 2.0 - 1)

    def forward(self, images: Tensor) -> TokenizerOutput:
        share = torch.rand(len(images), device=images.device) if self.training else torch.full((len(images),), 0.5)
        vectors, grains = self._vectors(images, share)
        soft = vectors.tanh()
        signs = soft + (vectors.sign() - soft).detach()
        quantization = (vectors - vectors.sign()).square().mean() * 0.25
        return TokenizerOutput(self.out(signs), self._codes(vectors, grains), {"quantization": quantization})

    def _vectors(self, images: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.norm(self.into(images))
        coarse = nn.functional.avg_pool2d(vectors, 2)
        places = torch.linspace(0, 1, coarse[0, 0].numel()).view(1, *coarse.shape[2:])
        grains = (places > share[:, None, None]).long()
        fine = grains.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].bool()
        return torch.where(fine, vectors, coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)), grains

    @torch.compiler.disable  # the checks of shapes, which only tests have, are slow to trace
    def _codes(self, vectors: Tensor, grains: Tensor) -> Codes:
        bits = (vectors > 0).long()
        return Codes.from_code_map(sum(bits[:, bit] << bit for bit in range(4)), grains, self.spec)


def crops(count: int, side: int = 32) -> Tensor:
    """Crops of a photograph, `[count 3 side side]` in [-1, 1]."""
    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 127.5 - 1
    places = torch.randint(0, 512 - side, (count, 2), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.stack([picture[:, top : top + side, left : left + side] for top, left in places])


def collate(images: list[Tensor]) -> ImageBatch:
    return ImageBatch(torch.stack(images), None, [str(index) for index in range(len(images))])


@pytest.fixture
def tokenizer() -> TinyTokenizer:
    return TinyTokenizer()


@pytest.fixture
def images() -> Tensor:
    return crops(16)


@pytest.fixture
def loader() -> Callable[..., DataLoader]:
    """Build a loader of crops of a photograph."""

    def build(count: int = 16, batch_size: int = 4, shuffle: bool = False) -> DataLoader:
        return DataLoader(list(crops(count)), batch_size, shuffle=shuffle, collate_fn=collate)

    return build


@pytest.fixture
def fit(tmp_path, loader) -> Callable[..., Trainer]:
    """Train on the CPU and without logging, unless asked for, and give the trainer back."""

    def run(training: TokenizerTraining, batches: DataLoader | None = None, validation=None, **options) -> Trainer:
        checkpoint = options.pop("ckpt_path", None)
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
        }
        trainer = Trainer(devices=1, default_root_dir=tmp_path, **{**quiet, **options})
        batches = loader() if batches is None else batches
        trainer.fit(training, batches, validation, ckpt_path=checkpoint, weights_only=True)
        return trainer

    return run
