"""Pictures of several sizes through every verb that takes pictures of a source."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

import vltok
from tests.cli.exports import write_bundle
from vltok.errors import UserError
from vltok.pictures.folder import Folder
from vltok.pictures.photos import Photos
from vltok.sequences.stored import stored_sequences
from vltok.verbs.detokenize import detokenize
from vltok.verbs.tokenize import tokenize

SIZES = [(32, 32), (24, 40), (40, 24)]
FIT = {
    "data.size": SIZES,
    "data.batch_size": 2,
    "data.train_crops": 48,
    "data.val_crops": 9,
    "model.tokenizer.encoder.width": 8,
    "model.tokenizer.encoder.channels": 8,
    "model.tokenizer.decoder.width": 8,
    "model.tokenizer.quantizer.size": 32,
    "model.calibration_batches": 2,
    "model.discriminator": {"class_path": "patchgan", "init_args": {"width": 4, "layers": 1}},
    "trainer.max_steps": 4,
    "trainer.precision": "32-true",
    "trainer.accelerator": "cpu",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tokenizer"
    write_bundle(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures: squares, wide ones and high ones in turn."""
    root = tmp_path_factory.mktemp("pictures")
    for index in range(9):
        height, width = [(64, 66), (50, 80), (90, 52)][index % 3]
        picture = np.roll(photographs.chelsea(), 31 * index, axis=1)[100 : 100 + height, 100 : 100 + width]
        Image.fromarray(picture).save(root / f"{index}.png")
    return root


def test_codes_are_those_of_each_picture_at_its_size(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        data = Folder(str(pictures), size=SIZES, batch_size=4, workers=workers)
        manifest = tokenize(bundle, data, tmp_path / f"codes{workers}", shard_size=5, device="cpu").manifest
    assert manifest.spec.regions is None
    names = [path.name for path in sorted((tmp_path / "codes0").iterdir())]
    assert all((tmp_path / "codes0" / name).read_bytes() == (tmp_path / "codes2" / name).read_bytes() for name in names)
    sequences = stored_sequences(tmp_path / "codes0")
    assert sequences.grids.tolist() == [[4, 4], [3, 5], [5, 3]] * 3
    tokenizer = vltok.load_tokenizer(bundle, "cpu")
    for place, sample in enumerate(data.export_source("all").read(range(9))):
        codes = tokenizer.encode(sample.pixels)
        assert codes.to_code_map(tokenizer.spec).shape[1:] == (2 * codes.grains.shape[1], 2 * codes.grains.shape[2])
        stored = sequences[np.array([place])]
        assert torch.equal(stored.ids, codes.ids) and torch.equal(stored.grains, codes.grains)
    detokenize(tmp_path / "codes0", tmp_path / "decoded", tokenizer=bundle, device="cpu")
    shapes = [Image.open(tmp_path / "decoded" / f"{index}.png").size[::-1] for index in range(9)]
    assert shapes == SIZES * 3


def test_a_tokenizer_is_trained_and_measured(tmp_path: Path) -> None:
    run = vltok.fit("quickstart", out=tmp_path / "run", overrides=FIT)
    assert [tuple(size) for size in run.record.protocol["data"]["size"]] == SIZES
    assert "expected_length" not in run.record.values
    drawn = Image.open(tmp_path / "run" / "reconstructions.png")
    assert drawn.height > 3 * 200  # a grid for each size
    data = Photos(size=SIZES, batch_size=2, val_crops=9, train_crops=33)
    found = vltok.evaluate(run.bundle, data, out=tmp_path / "evaluated", device="cpu")
    assert found.measurement.images == 9
    page = (tmp_path / "evaluated" / "report.html").read_text(encoding="utf-8")
    assert "9 held-out pictures of 32 × 32, 24 × 40, 40 × 24" in page
    curve = vltok.rate(run.bundle, data, points=2, codecs=False, device="cpu").curve
    assert len(curve.keys) == 9 and curve.points


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(32, 32), (28, 36)], r"data\.size has 28 × 36, but must be a multiple of 8, .*; the nearest is 32 × 32"),
        ([(32, 32), (24, 4)], r"data\.size has 24 × 4, .*; the nearest is 24 × 8"),
    ],
)
def test_every_side_must_suit_the_tokenizer(sizes: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        vltok.fit("quickstart", out=tmp_path / "run", overrides={**FIT, "data.size": sizes})
    assert not (tmp_path / "run").exists()
