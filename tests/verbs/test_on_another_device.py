"""The verbs on a device that Python stands in for give what they give on the CPU."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import vltok
from vltok.interfaces import SamplingConfig
from vltok.pictures.photos import Photos
from vltok.sequences.stored import stored_sequences
from vltok.testing import PretendedDevice


@pytest.fixture
def device() -> Iterator[PretendedDevice]:
    with PretendedDevice(double_precision=False) as device:
        yield device


def test_tokenize(bundles: Path, device: PretendedDevice, tmp_path: Path) -> None:
    photos = Photos(size=16, val_crops=9, batch_size=4)
    for where in (device.name, "cpu"):
        vltok.tokenize(bundles / "tokenizer", photos, tmp_path / where, split="val", device=where)
    there, here = (stored_sequences(str(tmp_path / where)) for where in (device.name, "cpu"))
    assert len(there) == 9 and there[np.arange(9)].equal(here[np.arange(9)])


def test_sample(bundles: Path, device: PretendedDevice, tmp_path: Path) -> None:
    found = vltok.sample(bundles / "prior", 3, batch_size=2, device=device.name)
    assert found.pictures.shape == (3, 3, 16, 16) and found.pictures.device.type == "cpu"
    half = SamplingConfig(precision="bfloat16", codes=10)
    written = vltok.sample(bundles / "prior", 2, tmp_path / "out", device=device.name, sampling=half)
    assert written.manifest.statistics["length"]["histogram"] == {"10": 2}


def test_evaluate(bundles: Path, device: PretendedDevice) -> None:
    photos = Photos(size=16, val_crops=9, batch_size=4)
    there, here = (
        vltok.evaluate(bundles / "tokenizer", photos, device=where, examples=0).record.values
        for where in (device.name, "cpu")
    )
    assert there["psnr"].value == pytest.approx(here["psnr"].value, rel=1e-4)


@pytest.mark.parametrize("rate", ["codes=10", "max-codes=10", "mean-codes=9", "bpp=0.3", "psnr=9", "threshold=0"])
def test_rates(bundles: Path, device: PretendedDevice, rate: str) -> None:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    there, here = (vltok.load_tokenizer(bundles / "tokenizer", where) for where in (device.name, "cpu"))
    for asked in (rate, f"{rate},measured"):
        assert there.encode(images, asked).to("cpu").equal(here.encode(images, asked))
