"""`vltok reconstruct` on pictures of every kind, with a tiny tokenizer from a bundle."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from PIL import Image

from vltok.cli.main import main
from vltok.cli.reconstruct import run
from vltok.errors import UserError
from vltok.io.bundles import fingerprint, load_tokenizer, save_tokenizer
from vltok.pictures.decoding import decode
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import EntropyGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer with random weights, regions of 8 pixels and cells of 4."""
    torch.manual_seed(0)
    tokenizer = DQVAE(
        PatchEncoder([4, 8], width=64, blocks=1, channels=64),
        EntropyGate({4: 0.5, 8: 0.5}, thresholds=[0.5]),
        EMAVectorQuantizer(32, dimension=8),
        PixelShuffleDecoder(4, channels=64, width=64, blocks=1),
    )
    path = tmp_path_factory.mktemp("tokenizer") / "bundle"
    save_tokenizer(tokenizer, path)
    return str(path)


@pytest.fixture
def photograph() -> Image.Image:
    return Image.fromarray(skimage.data.coffee()[100:161, 200:283])  # 83 x 61


def metrics_of(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def test_figures_are_those_of_the_written_picture(bundle: str, photograph: Image.Image, tmp_path: Path) -> None:
    photograph.save(tmp_path / "coffee.png")
    out = tmp_path / "out"
    run([str(tmp_path / "coffee.png"), "--tokenizer", bundle, "--out", str(out)])
    assert sorted(path.name for path in out.iterdir()) == ["coffee.coding.png", "coffee.png", "metrics.json"]
    written = np.asarray(Image.open(out / "coffee.png"))
    assert written.shape == (61, 83, 3)
    metrics = metrics_of(out)
    (record,) = metrics["images"]
    expected = skimage.metrics.peak_signal_noise_ratio(np.asarray(photograph), written, data_range=255)
    assert record["psnr"] == pytest.approx(expected, abs=1e-4)
    assert (record["name"], record["width"], record["height"]) == ("coffee", 83, 61)
    regions = 8 * 11
    fine = round(record["ratios"]["4"] * regions)
    assert 0 < fine < regions, "the photograph should have both granularities"
    assert record["code_length"] == regions + 3 * fine
    assert record["bits"] == pytest.approx(5 * record["code_length"] + regions)
    assert metrics["values"]["psnr"]["value"] == record["psnr"]
    assert metrics["values"]["length"]["value"] == record["code_length"]
    assert metrics["values"]["ratio_4"]["value"] == record["ratios"]["4"]
    assert metrics["subject"] == {"path": bundle, "fingerprint": fingerprint(bundle)}
    assert metrics["environment"]["skipped"] == []


def test_the_picture_is_that_of_the_tokenizer(bundle: str, tmp_path: Path) -> None:
    pixels = skimage.data.coffee()[100:164, 200:280]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    run([str(tmp_path / "a.png"), "--tokenizer", bundle, "--out", str(tmp_path / "out")])
    tokenizer = load_tokenizer(bundle)
    with torch.inference_mode():
        images = torch.from_numpy(pixels.copy()).movedim(-1, 0)[None] / 127.5 - 1
        decoded = tokenizer.decode(tokenizer.encode(images))[0].clamp(-1, 1).movedim(0, -1)
    written = np.asarray(Image.open(tmp_path / "out" / "a.png"), dtype=float)
    assert np.abs(written - (decoded.numpy() + 1) * 127.5).max() <= 0.501


def test_the_map_shows_where_codes_went(bundle: str, tmp_path: Path) -> None:
    pixels = np.full((32, 64, 3), 128, dtype=np.uint8)
    pixels[:, 32:] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))  # smooth on the left, noise on the right
    Image.fromarray(pixels).save(tmp_path / "half.png")
    run([str(tmp_path / "half.png"), "--tokenizer", bundle, "--out", str(tmp_path / "out")])
    drawn = np.asarray(Image.open(tmp_path / "out" / "half.coding.png"), dtype=float).mean(axis=0)
    assert (drawn[:32, 2] > drawn[:32, 0]).all(), "blue: few codes"
    assert (drawn[32:, 0] > drawn[32:, 2]).all(), "red: many"
    assert metrics_of(tmp_path / "out")["images"][0]["ratios"] == {"8": 0.5, "4": 0.5}


def test_where_codes_went_is_measured_over_all_pictures(bundle: str, tmp_path: Path, capsys) -> None:
    for name, left in (("a", 100), ("b", 300)):
        Image.fromarray(skimage.data.coffee()[100:250, left : left + 150]).save(tmp_path / f"{name}.png")
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "c.png")  # smaller than a region
    run([*(str(tmp_path / f"{name}.png") for name in "abc"), "--tokenizer", bundle, "--out", str(tmp_path / "out")])
    metrics = metrics_of(tmp_path / "out")
    # four crops each of two pictures
    assert metrics["protocol"]["adaptation"] == {"images": 8, "regions": 8 * 16}
    printed = " ".join(capsys.readouterr().out.split())
    assert f" share of the best gain ↑ {metrics['values']['gain_share']['value']:.1%} " in printed


def exif_rotated(photograph: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    photograph.save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_pictures_of_every_kind(bundle: str, photograph: Image.Image, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    photograph.quantize(16).save(source / "palette.png")
    photograph.convert("CMYK").save(source / "cmyk.jpg")
    photograph.convert("L").save(source / "grey.png")
    photograph.convert("RGBA").save(source / "alpha.webp")
    Image.fromarray(np.asarray(photograph.convert("L")).astype(np.uint16) * 257).save(source / "deep.png")
    photograph.crop((0, 0, 1, 1)).save(source / "pixel.png")
    photograph.crop((0, 0, 1, 40)).save(source / "line.png")
    (source / "rotated.jpg").write_bytes(exif_rotated(photograph))
    run([str(source), "--tokenizer", bundle, "--out", str(tmp_path / "out")])
    records = {record["name"]: record for record in metrics_of(tmp_path / "out")["images"]}
    assert set(records) == {path.stem for path in source.iterdir()}
    for path in source.iterdir():
        expected = decode(path).size
        for ending in (".png", ".coding.png"):
            with Image.open(tmp_path / "out" / (path.stem + ending)) as result:
                assert (result.size, result.mode) == (expected, "RGB")
        assert (records[path.stem]["width"], records[path.stem]["height"]) == expected
    assert records["rotated"]["width"] == 61


def test_a_corrupt_picture_harms_no_other(
    bundle: str, photograph: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph.save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes()[:2000])
    (tmp_path / "c.png").write_bytes(b"no picture at all")
    arguments = [str(tmp_path / f"{name}.png") for name in "abc"]
    out = tmp_path / "out"
    assert main(["reconstruct", *arguments, "--tokenizer", bundle, "--out", str(out)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "Traceback" not in "".join(lines)
    assert "skipped" in lines[0] and "a.png" in lines[0] and "c.png" in lines[1]
    assert "2 of 3 pictures could not be reconstructed" in lines[2]
    assert sorted(path.name for path in out.iterdir()) == ["b.coding.png", "b.png", "metrics.json"]
    metrics = metrics_of(out)
    assert [record["name"] for record in metrics["images"]] == ["b"]
    assert [Path(failure["source"]).name for failure in metrics["environment"]["skipped"]] == ["a.png", "c.png"]


def test_only_corrupt_pictures_are_one_line(bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture at all")
    out = tmp_path / "out"
    assert main(["reconstruct", str(tmp_path / "a.png"), "--tokenizer", bundle, "--out", str(out)]) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 2 and "skipped" in lines[0] and printed.out == ""
    assert lines[1].startswith("vltok: error: 1 of 1 pictures could not be reconstructed: ")
    assert metrics_of(out)["values"] == {} and "images" not in metrics_of(out)


def test_an_interrupt_loses_no_finished_work(
    bundle: str, photograph: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        photograph.save(tmp_path / f"{name}.png")

    def interrupted(path: Path) -> Image.Image:
        if path.stem == "b":
            raise KeyboardInterrupt
        return decode(path)

    monkeypatch.setattr("vltok.verbs.given_pictures.decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run([str(tmp_path), "--tokenizer", bundle, "--out", str(tmp_path / "out")])
    assert [record["name"] for record in metrics_of(tmp_path / "out")["images"]] == ["a"]


def test_big_pictures_are_coded_in_tiles(bundle: str, tmp_path: Path) -> None:
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "coffee.png")  # 600 x 400
    for tile in ("128", "1000"):
        run([str(tmp_path / "coffee.png"), "--tokenizer", bundle, "--out", str(tmp_path / tile), "--tile", tile])
    tiled, whole = (metrics_of(tmp_path / tile)["images"][0] for tile in ("128", "1000"))
    # this gate looks at one region at a time, so that a tile changes nothing about it
    assert tiled["ratios"] == whole["ratios"] and tiled["code_length"] == whole["code_length"]
    maps = [Image.open(tmp_path / tile / "coffee.coding.png").tobytes() for tile in ("128", "1000")]
    assert maps[0] == maps[1]


def test_two_pictures_of_one_name_are_both_written(bundle: str, photograph: Image.Image, tmp_path: Path) -> None:
    for folder, shade in (("one", 0), ("two", 255)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8), (shade,) * 3).save(tmp_path / "in" / folder / "cat.png")
    out = tmp_path / "out"
    run([str(tmp_path / "in"), "--tokenizer", bundle, "--out", str(out)])
    assert [(record["name"], Path(record["source"]).parent.name) for record in metrics_of(out)["images"]] == [
        ("cat", "one"),
        ("cat-2", "two"),
    ]
    assert Image.open(out / "cat.png").tobytes() != Image.open(out / "cat-2.png").tobytes()


def test_a_picture_that_is_read_is_never_overwritten(bundle: str, photograph: Image.Image, tmp_path: Path) -> None:
    photograph.save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(UserError, match="would overwrite the input"):
        run([str(tmp_path / "a.png"), "--tokenizer", bundle, "--out", str(tmp_path)])
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.png"], "PICTURES 'missing.png' does not exist"),
        (["*.nothing"], "PICTURES '*.nothing' matches no file"),
        (["empty"], "folder holds no picture"),
        (["a.png", "--tile", "0"], "--tile must be at least 1"),
        (["a.png", "--device", "warp"], "--device 'warp' is not on this machine"),
        (["a.png", "--out", "a.png"], "--out 'a.png' is a file: name a folder"),
        (["a.png", "--tokenizer", "missing"], "there is no bundle 'missing'"),
    ],
)
def test_wrong_arguments_get_one_line(
    arguments: list[str],
    said: str,
    bundle: str,
    photograph: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    photograph.save("a.png")
    assert main(["reconstruct", "--tokenizer", bundle, "--out", "out", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not Path("out").exists() or not any(Path("out").iterdir())
