"""The verbs on a device that Python stands in for give what they give on the CPU."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch

import vltok
from tests.cli.runs import RECIPE
from tests.elsewhere import train_on
from vltok.cli.main import main
from vltok.interfaces import SamplingConfig
from vltok.pictures.photos import Photos
from vltok.sequences.stored import stored_sequences
from vltok.testing import PretendedDevice
from vltok.testing.other_device import Cuda, another_device


@pytest.fixture
def device() -> Iterator[Cuda | PretendedDevice]:
    with another_device() as device:
        yield device


def test_tokenize(bundles: Path, device: Cuda | PretendedDevice, tmp_path: Path) -> None:
    photos = Photos(size=16, val_crops=9, batch_size=4)
    for where in (device.name, "cpu"):
        vltok.tokenize(bundles / "tokenizer", photos, tmp_path / where, split="val", device=where)
    there, here = (stored_sequences(str(tmp_path / where)) for where in (device.name, "cpu"))
    assert len(there) == 9 and there[np.arange(9)].equal(here[np.arange(9)])


def test_sample(bundles: Path, device: Cuda | PretendedDevice, tmp_path: Path) -> None:
    found = vltok.sample(bundles / "prior", 3, batch_size=2, device=device.name)
    assert found.pictures.shape == (3, 3, 16, 16) and found.pictures.device.type == "cpu"
    half = SamplingConfig(precision="bfloat16", codes=10)
    written = vltok.sample(bundles / "prior", 2, tmp_path / "out", device=device.name, sampling=half)
    assert written.manifest.statistics["length"]["histogram"] == {"10": 2}


def test_evaluate(bundles: Path, device: Cuda | PretendedDevice) -> None:
    photos = Photos(size=16, val_crops=9, batch_size=4)
    there, here = (
        vltok.evaluate(bundles / "tokenizer", photos, device=where, examples=0).record.values
        for where in (device.name, "cpu")
    )
    assert there["psnr"].value == pytest.approx(here["psnr"].value, rel=1e-4)


@pytest.mark.parametrize("rate", ["codes=10", "max-codes=10", "mean-codes=9", "bpp=0.3", "psnr=9", "threshold=0"])
def test_rates(bundles: Path, device: Cuda | PretendedDevice, rate: str) -> None:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    there, here = (vltok.load_tokenizer(bundles / "tokenizer", where) for where in (device.name, "cpu"))
    for asked in (rate, f"{rate},measured"):
        assert there.encode(images, asked).to("cpu").equal(here.encode(images, asked))


def test_rate(bundles: Path, device: Cuda | PretendedDevice) -> None:
    photos = Photos(size=16, train_crops=10, val_crops=6, batch_size=4)
    there, here = (
        vltok.rate(vltok.load_tokenizer(bundles / "tokenizer", where), photos, points=3, codecs=False)
        for where in (device.name, "cpu")
    )
    assert there.calibration.shares == here.calibration.shares
    assert there.calibration.thresholds == pytest.approx(here.calibration.thresholds, abs=1e-3)
    assert there.curve.own.mean == pytest.approx(here.curve.own.mean, rel=1e-3)


def test_fit_and_go_on(device: Cuda | PretendedDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    options = [f"--trainer.accelerator={train_on(device, monkeypatch)}"]
    if isinstance(device, Cuda):
        options.append("--trainer.precision=bf16-mixed")
    assert main(["fit", "--config", str(recipe), "--out", str(run), *options]) == 0
    before = vltok.Tokenizer.from_pretrained(run / "bundle").state_dict()
    assert main(["fit", "--resume", "--out", str(run), "--trainer.max_steps=4"]) == 0
    after = vltok.Tokenizer.from_pretrained(run / "bundle").state_dict()
    moved = [name for name, value in after.items() if value.isfinite().all() and not value.equal(before[name])]
    assert any("encoder" in name for name in moved) and any("decoder" in name for name in moved)
    assert device.read_backs


def test_reconstruct(bundles: Path, device: Cuda | PretendedDevice) -> None:
    there, here = (
        vltok.reconstruct(bundles / "tokenizer", skimage.data.coffee()[:32, :40], device=where).pictures[0].figures.psnr
        for where in (device.name, "cpu")
    )
    assert there == pytest.approx(here, rel=1e-4)
