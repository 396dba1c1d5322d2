from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vltok.cli.main import main
from vltok.io.bundles import load_tokenizer
from vltok.measures.pixels import to_bytes
from vltok.nn.convolutions import packed_convolutions
from vltok.pictures.folder import Folder
from vltok.pictures.photos import Photos

from .exports import contents, write_bundle, write_pictures


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(path)
    return path


def decoded(bundle: Path, batches) -> dict[str, np.ndarray]:
    """The pictures that the tokenizer gives back, by the source's key."""
    tokenizer = load_tokenizer(bundle)
    with torch.inference_mode(), packed_convolutions(tokenizer):  # as verbs have them, which rounds otherwise
        return {
            key: pixels.permute(1, 2, 0).numpy()
            for batch in batches
            for key, pixels in zip(batch.keys, to_bytes(tokenizer.decode(tokenizer.encode(batch.images))), strict=True)
        }


@pytest.mark.parametrize("name", ["webdataset", "parquet"])
def test_held_out_crops_come_back_bit_for_bit(name: str, bundle: Path, tmp_path: Path) -> None:
    """Shards end within the source's batches, and a batch's arithmetic may depend on its size: sizes agree here."""
    data = ["--data", "photos", "--data.size=64", "--data.val_crops=24", "--data.batch_size=4", "--split", "val"]
    common = ["--tokenizer", str(bundle)]
    out = ["--out", str(tmp_path / "codes"), "--shard-size=8", "--format", name]
    assert main(["tokenize", *common, *data, *out]) == 0
    assert main(["detokenize", str(tmp_path / "codes"), *common, "--out", str(tmp_path / "pictures")]) == 0
    expected = decoded(bundle, Photos(size=64, val_crops=24, batch_size=4).val_dataloader())
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == set(expected)
    for key, pixels in expected.items():
        assert np.array_equal(np.array(Image.open(tmp_path / "pictures" / f"{key}.png")), pixels)


@pytest.mark.filterwarnings("ignore:skipped the corrupt picture")
def test_pictures_keep_their_folders_and_gaps(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "source"
    write_pictures(root, 12)
    (root / "cat" / "003.png").write_bytes(b"no picture")
    data = ["--data", "folder", f"--data.root={root}", "--data.size=32", "--data.workers=0", "--data.batch_size=1"]
    common = ["--tokenizer", str(bundle)]
    assert main(["tokenize", *common, *data, "--out", str(tmp_path / "codes"), "--shard-size=5"]) == 0
    assert main(["detokenize", str(tmp_path / "codes"), *common, "--out", str(tmp_path / "out")]) == 0
    expected = decoded(bundle, Folder(str(root), size=32, batch_size=1, workers=0).export_dataloader())
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert found == set(expected) and "cat/003.png" not in found
    for key, pixels in expected.items():
        assert np.array_equal(np.array(Image.open(tmp_path / "out" / key)), pixels)


def test_codes_of_another_tokenizer_are_refused(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = ["--data", "photos", "--data.size=32", "--data.val_crops=2", "--split", "val"]
    assert main(["tokenize", "--tokenizer", str(bundle), *data, "--out", str(tmp_path / "codes")]) == 0
    write_bundle(tmp_path / "other", seed=1)
    given = ["detokenize", str(tmp_path / "codes"), "--tokenizer", str(tmp_path / "other")]
    assert main([*given, "--out", str(tmp_path / "out")]) == 1
    assert "are of another tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_damaged_codes_are_refused(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = ["--data", "photos", "--data.size=32", "--data.val_crops=2", "--split", "val"]
    assert main(["tokenize", "--tokenizer", str(bundle), *data, "--out", str(tmp_path / "codes")]) == 0
    shard = tmp_path / "codes" / "codes-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"ids.npy", b"abc.npy"))
    given = ["detokenize", str(tmp_path / "codes"), "--tokenizer", str(bundle)]
    assert main([*given, "--out", str(tmp_path / "out")]) == 1
    assert "codes-000000.tar is missing or damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": "nowhere"}, "nowhere holds no finished codes"),
        ({"--batch-size": "0"}, "--batch-size must be at least 1, not 0"),
        ({"--tokenizer": "nowhere"}, "there is no bundle 'nowhere'"),
        ({"--device": "cuda:99"}, "--device 'cuda:99' is not on this machine"),
        ({"--out": __file__}, "is a file: name a folder"),
    ],
)
def test_wrong_arguments(
    changes: dict, message: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = ["--data", "photos", "--data.size=32", "--data.val_crops=2", "--split", "val"]
    assert main(["tokenize", "--tokenizer", str(bundle), *data, "--out", str(tmp_path / "codes")]) == 0
    before = contents(tmp_path)
    given = {"codes": str(tmp_path / "codes"), "--tokenizer": str(bundle), "--out": str(tmp_path / "out"), **changes}
    codes = given.pop("codes")
    assert main(["detokenize", codes, *(part for pair in given.items() for part in pair)]) == 1
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before
