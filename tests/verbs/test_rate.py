"""`vltok.rate` as a notebook calls it."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

import vltok
from tests.cli.exports import CONFIG, write_bundle
from vltok.codes import Codes, CodeSpec
from vltok.compression.tables import CodeTables
from vltok.errors import UserError
from vltok.evaluation.rate_means import RateMeans
from vltok.interfaces import Tokenizer, TokenizerOutput
from vltok.io.bundles import fingerprint, load_tokenizer
from vltok.measures.pixels import to_bytes
from vltok.pictures.folder import Folder
from vltok.pictures.photos import Photos
from vltok.verbs.evaluate import evaluate
from vltok.verbs.rate import RateMeasurement, rate


def photos(**options) -> Photos:
    return Photos(**{"size": 32, "batch_size": 8, "train_crops": 40, "val_crops": 12, **options})


def bundle_of(path: Path, gate: dict, factors: tuple[int, ...] = (4, 8)) -> Path:
    """A tokenizer with a gate, as a bundle."""
    config = copy.deepcopy(CONFIG)
    parts = config["init_args"]
    del parts["budget"]
    parts["gate"] = gate
    parts["encoder"]["init_args"]["factors"] = list(factors)
    parts["decoder"]["init_args"]["factor"] = factors[0]
    write_bundle(path, config=config)
    return path


def entropy_gate(*factors: int) -> dict:
    thresholds = [1.0 + place / 2 for place in range(len(factors) - 1)]
    ratios = dict.fromkeys(factors, 1 / len(factors))
    return {"class_path": "entropy", "init_args": {"ratios": ratios, "thresholds": thresholds}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, RateMeasurement]:
    """A bundle, the folder of its curve, and the curve."""
    folder = tmp_path_factory.mktemp("rate")
    bundle = bundle_of(folder / "bundle", entropy_gate(4, 8, 16), (4, 8, 16))
    return bundle, folder / "out", rate(bundle, photos(), folder / "out", points=5, examples=2, device="cpu")


def test_the_bundle_keeps_what_was_measured(measured) -> None:
    bundle, _, found = measured
    assert found.stored == tuple(bundle / name for name in ("rate.json", "code_tables.safetensors", "rate_curve.json"))
    assert not [path.name for path in bundle.iterdir() if path.name.startswith(".")], "a lock stayed behind"
    loaded = load_tokenizer(bundle)
    assert loaded.calibration == found.calibration and found.calibration.pictures == 40
    assert found.calibration.data == "photos, 32 × 32 pixels, of the training split"
    assert [tables.name for tables in CodeTables.stored(bundle, loaded.spec)] == [found.tables.name]
    copied = bundle_of(bundle.with_name("copy"), entropy_gate(4, 8, 16), (4, 8, 16))
    assert fingerprint(copied) == fingerprint(bundle)


def test_the_report_of_an_evaluation_shows_the_curve(measured, tmp_path: Path) -> None:
    bundle, _, found = measured
    evaluation = evaluate(bundle, photos(val_crops=2), examples=0, device="cpu", out=tmp_path)
    assert evaluation.rates == RateMeans.of(found.curve, "12 held-out pictures of photos, 32 × 32 pixels")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "vltok rate on 12 held-out pictures of photos" in page and "jpeg" in page.partition("Rate and distortion")[2]
    assert "measured on this page" in page and "measured on this page" not in (tmp_path / "metrics.json").read_text()


def test_the_curve_goes_from_the_fewest_codes_to_the_most(measured) -> None:
    bundle, _, found = measured
    lengths = [point.mean["length"] for point in found.curve.points]
    asked = [point.asked["length"] for point in found.curve.points]
    assert asked == pytest.approx([4, 19, 34, 49, 64]) and lengths == sorted(lengths)
    tokenizer = load_tokenizer(bundle)
    images = torch.cat([batch.images for batch in photos().val_dataloader()])
    for point in found.curve.points:
        codes = tokenizer.encode(images, f"threshold={point.asked['threshold']!r}")
        assert codes.lengths.tolist() == point.images["length"].tolist()
        squares = (to_bytes(tokenizer.decode(codes)).double() - to_bytes(images).double()).div(255).square()
        assert point.images["mse"] == pytest.approx(squares.mean(dim=(1, 2, 3)).numpy(), rel=1e-4)


def test_its_own_choice_is_what_evaluate_measures(measured) -> None:
    bundle, _, found = measured
    values = vltok.evaluate(bundle, photos(), device="cpu").measurement.values
    for name in ("psnr", "ssim", "mse", "length", "bits_per_pixel", "psnr_pooled"):
        assert found.curve.own.mean[name] == pytest.approx(values[name].value, rel=1e-4), name


def test_bits_are_those_of_the_files_of_compress(measured) -> None:
    bundle, _, found = measured
    images = torch.cat([batch.images for batch in photos().val_dataloader()])
    files = vltok.compress(bundle, list(to_bytes(images)), device="cpu").pictures
    assert found.curve.own.images["file_bits_per_pixel"].tolist() == [file.bits_per_pixel for file in files]
    # at a rate, which the files name
    point = found.curve.points[2]
    rated = f"mean-codes={round(point.asked['length'], 1):g}"
    files = [vltok.compress(bundle, image, rate=rated, device="cpu").pictures[0] for image in to_bytes(images)]
    same = [file.code_length == length for file, length in zip(files, point.images["length"], strict=True)]
    bits = point.images["file_bits_per_pixel"]
    assert all(bits[place] == files[place].bits_per_pixel for place in range(12) if same[place]) and sum(same) > 6


def test_codecs_stand_beside_it_on_the_same_pixels(measured) -> None:
    _, _, found = measured
    jpeg = found.curve.codecs["jpeg"]
    expected = vltok.evaluate(data=photos(), codec="jpeg", quality=40).measurement.values
    (point,) = (point for point in jpeg if point.asked == {"quality": 40})
    assert point.mean["psnr"] == pytest.approx(expected["psnr"].value, rel=1e-5)
    assert point.mean["file_bits_per_pixel"] == pytest.approx(expected["bits_per_pixel"].value, rel=1e-5)
    for points in found.curve.codecs.values():
        bits = [point.mean["file_bits_per_pixel"] for point in points]
        assert bits == sorted(bits)
    assert {*found.curve.codecs, *found.curve.missing} == {"jpeg", "webp", "avif", "jpeg2000", "jpegxl"}


def test_the_folder_holds_every_figure(measured) -> None:
    bundle, out, found = measured
    assert found.files == (out / "curve.json", out / "curve.png", out / "rate.html")
    content = json.loads((out / "curve.json").read_text())
    assert content["tokenizer"]["fingerprint"] == fingerprint(bundle)
    assert content["calibration"] == {"pictures": 40, "data": found.calibration.data}
    assert len(content["points"]) == 5 and len(content["pictures"]) == 12
    for told, point in zip([*content["points"], content["own"]], [*found.curve.points, found.curve.own], strict=True):
        assert told["mean"] == point.mean and told["asked"] == point.asked
        assert told["images"]["psnr"] == pytest.approx(point.images["psnr"].tolist(), rel=1e-5)
    assert Image.open(out / "curve.png").width == 720


@pytest.fixture
def crops(tmp_path: Path) -> Iterator[Folder]:
    """Pictures of one kind, half of them held out."""
    photograph = skimage.data.coffee()
    for place in range(240):
        row, column = 32 * (place // 18 % 12), 32 * (place % 18)
        (tmp_path / "crops").mkdir(exist_ok=True)
        crop = np.rot90(photograph[row : row + 32, column : column + 32], place // 216)
        Image.fromarray(np.ascontiguousarray(crop)).save(tmp_path / "crops" / f"{place}.png")
    yield Folder(str(tmp_path / "crops"), size=32, batch_size=40, workers=0, val_share=0.5)


@pytest.mark.parametrize("factors", [(4, 8), (4, 8, 16)], ids=str)
def test_a_mean_holds_for_pictures_that_calibration_did_not_see(crops: Folder, tmp_path: Path, factors) -> None:
    """Each alone: their mean is what was asked for, as near as so many pictures can tell."""
    bundle = bundle_of(tmp_path / "bundle", entropy_gate(*factors), factors)
    found = rate(bundle, crops, points=5, codecs=False, device="cpu")
    for point in found.curve.points[1:-1]:
        asked, lengths = point.asked["length"], point.images["length"]
        # of both sets, calibration's and this one
        deviation = lengths.std() * (1 / len(lengths) + 1 / found.calibration.pictures) ** 0.5
        assert abs(lengths.mean() - asked) < 3 * deviation
        assert deviation < 0.13 * asked  # else this says nothing
    tokenizer, middle = load_tokenizer(bundle), found.curve.points[2]
    images = torch.cat([batch.images for batch in crops.val_dataloader()])
    alone = [tokenizer.encode(image, f"mean-codes={middle.asked['length']}").lengths.item() for image in images]
    assert np.mean(alone) == pytest.approx(middle.mean["length"], abs=0.2)


def test_a_tokenizer_object_gets_its_calibration(tokenizer: Tokenizer, tmp_path: Path) -> None:
    found = rate(tokenizer, photos(), points=2, codecs=False, examples=0)
    assert tokenizer.calibration == found.calibration is not None
    assert found.stored == found.files == () and found.curve.codecs == {} and found.curve.missing == ()
    image = next(iter(photos().val_dataloader())).images[0]
    threshold = found.calibration.threshold(0.5)
    assert tokenizer.encode(image, "mean-codes=32").equal(tokenizer.encode(image, f"threshold={threshold!r}"))


@pytest.mark.parametrize(
    ("factors", "why"), [((8,), "it has a single granularity"), ((4, 8), "the gate ranks no regions")]
)
def test_what_cannot_be_steered_is_measured_at_its_own_choice(
    factors: tuple[int, ...], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundle_of(tmp_path / "bundle", {"class_path": "fixed"}, factors)
    found = rate(bundle, photos(), tmp_path / "out", codecs=False, device="cpu")
    (line,) = caplog.messages
    assert line.startswith(f"'{bundle}' cannot be steered, so that its own choice alone is measured: {why}")
    assert found.calibration is None and found.curve.points == () and found.curve.own.mean["length"] > 0
    assert found.stored == (bundle / "code_tables.safetensors", bundle / "rate_curve.json") and len(found.files) == 3


class Unsteered(Tokenizer):
    """Somebody's own, which cannot be asked for a rate."""

    def __init__(self, within: Tokenizer) -> None:
        super().__init__()
        self.within = within
        self.spec, self.divisor = within.spec, within.divisor

    spec = CodeSpec(1)
    divisor = 1

    def encode_batch(self, images: Tensor) -> Codes:
        return self.within.encode_batch(images)

    def decode_batch(self, codes: Codes) -> Tensor:
        return self.within.decode_batch(codes)

    def forward(self, images: Tensor) -> TokenizerOutput:
        return self.within(images)


def test_a_tokenizer_need_not_know_of_rates(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    found = rate(Unsteered(tokenizer), photos(), codecs=False)
    assert caplog.messages[0].endswith("its own choice alone is measured: Unsteered takes no rate")
    assert found.calibration is None and found.curve.own.mean["length"] > 0


def test_where_nothing_can_be_stored_a_line_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = bundle_of(tmp_path / "bundle", entropy_gate(4, 8))
    (bundle / "rate.json").mkdir()
    found = rate(bundle, photos(), points=2, codecs=False, device="cpu")
    (line,) = caplog.messages
    assert line.startswith(f"'{bundle / 'rate.json'}' cannot be written (") and "measure a copy of it" in line
    assert found.stored == () and len(found.curve.points) == 2


def test_a_bundle_that_may_not_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundle_of(tmp_path / "bundle", entropy_gate(4, 8))
    monkeypatch.setattr("vltok.verbs.rate.os.access", lambda *_: False)
    monkeypatch.setattr("vltok.verbs.rate._why_fixed", lambda *_: pytest.fail(caplog.text))
    with pytest.raises(pytest.fail.Exception, match=r"stored nowhere, for '.*bundle' is read-only: measure a copy"):
        rate(bundle, photos(), device="cpu")


def test_a_repository_on_the_hub_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundle_of(tmp_path / "bundle", entropy_gate(4, 8))
    before = sorted(bundle.iterdir())
    monkeypatch.setattr("vltok.io.hub.Hub.fetch", lambda hub, name, files: bundle)
    found = rate("user/vq", photos(), points=2, codecs=False, device="cpu")
    (line,) = caplog.messages
    assert line.startswith("the rates are stored nowhere, for 'user/vq' is a repository")
    assert found.calibration is not None and sorted(bundle.iterdir()) == before


def test_damaged_tables_are_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundle_of(tmp_path / "bundle", entropy_gate(4, 8))
    (bundle / "code_tables.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr("vltok.verbs.rate.calibrate", lambda *_: pytest.fail("too late"))
    with pytest.raises(UserError, match="is damaged or was not written by vltok: remove it"):
        rate(bundle, photos(), device="cpu")


def test_so_many_pictures_are_read_at_most(tokenizer: Tokenizer) -> None:
    told = []
    found = rate(
        tokenizer,
        photos(),
        training_pictures=15,
        pictures=9,
        points=2,
        codecs=False,
        progress=lambda done, total: told.append((done, total)),
    )
    assert (found.calibration.pictures, len(found.curve.keys)) == (15, 9)
    assert told[0] == (0, 33) and told[-1] == (33, 33)
    # not the first ones alone, which may be of one kind
    assert found.curve.keys[-1] == "coffee-3"


def test_pictures_that_cannot_be_read_are_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for place in range(20):
        Image.new("RGB", (32, 32), (12 * place, 99, 9)).save(tmp_path / f"{place}.png")
    crops = Folder(str(tmp_path), size=32, batch_size=4, workers=0, max_corrupt=1.0, val_share=0.3)
    for key in list(crops.export_source("val").keys()):
        (tmp_path / key).write_bytes(b"no picture")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="there is no picture to measure"):
        rate(tokenizer, crops, points=2, codecs=False)
    with pytest.raises(UserError, match=r"SSIM needs pictures of at least 11 pixels"):
        rate(tokenizer, photos(size=8), points=2, codecs=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training_pictures": 0}, "--training-pictures"),
        ({"pictures": 0}, "--pictures"),
        ({"points": 1}, "--points"),
        ({"examples": -1}, "--examples"),
        ({"batch_size": 0}, "--batch-size"),
    ],
)
def test_what_is_out_of_range_is_named(options: dict, message: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=f"{message} must be"):
        rate(tokenizer, photos(), **options)
