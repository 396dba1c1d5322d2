"""`vltok evaluate`: a tokenizer, a prior and codecs on real photographs, at a tiny size."""

import copy
import csv
import json
import math
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from vltok.cli.main import main
from vltok.evaluation.records import Record
from vltok.io.bundles import fingerprint, load_tokenizer
from vltok.sequences.manifest import CodeManifest

from .exports import CONFIG, PRIOR, run_in_two, write_bundle, write_pictures, write_prior

DATA = ["--data=folder", "--data.root=pictures", "--data.size=16", "--data.workers=0", "--data.val_share=0.4"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a tokenizer and a prior that nothing has trained."""
    folder = tmp_path_factory.mktemp("project")
    write_bundle(folder / "tokenizer")
    write_pictures(folder / "pictures", 30)
    write_prior(folder / "prior", PRIOR, fingerprint(folder / "tokenizer"))
    return folder


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def evaluate(*arguments: str) -> dict:
    assert main(["evaluate", *arguments, *DATA, "--device", "cpu"]) == 0
    return json.loads(Path(arguments[-1], "metrics.json").read_text())


@pytest.fixture(scope="module")
def of_tokenizer(project: Path) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        return evaluate("--tokenizer", "tokenizer", "--features", "random:test_resnet", "--out", "evaluated")


def test_the_figures_of_a_tokenizer(of_tokenizer: dict, project: Path) -> None:
    values = {name: value["value"] for name, value in of_tokenizer["values"].items()}
    with (project / "evaluated" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == of_tokenizer["protocol"]["data"]["images"] == of_tokenizer["codes"]["samples"] > 5
    for name in ("psnr", "ssim", "l1", "mse", "bits_per_pixel", "length"):
        assert values[name] == pytest.approx(sum(float(row[name]) for row in rows) / len(rows))
        assert of_tokenizer["values"][name]["low"] <= values[name] <= of_tokenizer["values"][name]["high"]
    assert values["psnr_pooled"] == pytest.approx(-10 * math.log10(values["mse"]))
    assert values["frechet_distance/random:test_resnet"] > 0
    assert not any("fid" in name or "inception" in name for name in values)
    files = {path.name for path in (project / "evaluated").iterdir()}
    assert files == {"metrics.json", "config.yaml", "images.csv", "reconstructions.png", "report.html"}
    distance = of_tokenizer["values"]["feature_distance/random:test_resnet"]
    assert 0 < distance["low"] < distance["value"] < distance["high"] < 4
    codes = of_tokenizer["codes"]
    assert set(codes["codebook_perplexity"]) == {"any", "8", "4"}
    assert 1 <= codes["codebook_perplexity"]["any"] <= 300 * values["codebook_usage"]
    assert sum(codes["length"]["histogram"].values()) == len(rows)


def test_the_protocol(of_tokenizer: dict) -> None:
    protocol = of_tokenizer["protocol"]
    assert protocol["data"]["split"] == "val" and protocol["data"]["size"] == 16
    assert protocol["features"]["name"] == "random:test_resnet" and len(protocol["features"]["weights"]) == 64
    assert protocol["features"]["package"] == f"timm {version('timm')}" and protocol["crops"].endswith("16")
    assert protocol["versions"] == {name: version(name) for name in ("torchmetrics", "pillow")}
    assert of_tokenizer["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    parameters = sum(parameter.numel() for parameter in load_tokenizer("tokenizer").parameters())
    expected = {"path": "./tokenizer", "fingerprint": fingerprint("tokenizer"), "parameters": parameters}
    assert of_tokenizer["subject"] == expected


def test_the_options_repeat_the_evaluation(of_tokenizer: dict, tmp_path: Path) -> None:
    assert main(["evaluate", "--config", "evaluated/config.yaml", "--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "metrics.json").read_text())
    assert again["protocol"] == of_tokenizer["protocol"] and again["codes"] == of_tokenizer["codes"]
    assert again["values"]["psnr"] == of_tokenizer["values"]["psnr"]


def test_the_bits_are_those_of_the_code_shards(of_tokenizer: dict, tmp_path: Path) -> None:
    out = str(tmp_path / "codes")
    assert main(["tokenize", "--tokenizer", "tokenizer", "--split", "val", "--out", out, *DATA]) == 0
    manifest = CodeManifest.read(Path(out))
    samples = [sample for shard in manifest.shards for sample in manifest.read_samples(Path(out), shard)]
    bits = sum(len(sample.ids) * math.log2(300) + sample.grains.size * math.log2(2) for sample in samples)
    assert of_tokenizer["values"]["bits_per_pixel"]["value"] == pytest.approx(bits / len(samples) / 16**2)


def test_the_error_map_of_a_tokenizer_of_fixed_length(of_tokenizer: dict, tmp_path: Path) -> None:
    own = of_tokenizer["values"]
    assert of_tokenizer["protocol"]["fixed"] == "the tokenizer itself, coarsest granularity"
    assert -1 <= own["error_correlation"]["value"] <= 1
    config = copy.deepcopy(CONFIG)
    config["init_args"]["encoder"]["init_args"]["factors"] = [8]
    config["init_args"] |= {"gate": {"class_path": "fixed"}, "budget": None}
    config["init_args"]["decoder"]["init_args"]["factor"] = 8
    write_bundle(tmp_path / "fixed", config=config)
    found = evaluate("--tokenizer", "tokenizer", "--fixed", str(tmp_path / "fixed"), "--out", str(tmp_path / "out"))
    assert found["protocol"]["fixed"] == fingerprint(tmp_path / "fixed")
    assert found["values"]["psnr"] == own["psnr"]
    assert found["values"]["error_correlation"]["value"] != own["error_correlation"]["value"]
    with (tmp_path / "out" / "images.csv").open() as file:
        each = [float(row["error_correlation"]) for row in csv.DictReader(file)]
    defined = [value for value in each if not math.isnan(value)]
    mean = found["values"]["error_correlation_per_picture"]["value"]
    assert mean == pytest.approx(sum(defined) / len(defined))
    # one of fixed length has no choice that could be compared
    alone = evaluate("--tokenizer", str(tmp_path / "fixed"), "--out", str(tmp_path / "alone"))
    assert alone["protocol"]["fixed"] is None and "error_correlation" not in alone["values"]


def test_a_codec_is_measured_on_the_same_pictures(of_tokenizer: dict, tmp_path: Path) -> None:
    found = evaluate("--codec", "jpeg", "--quality", "50", "--out", str(tmp_path))
    assert found["subject"] == {"codec": "jpeg", "quality": 50} and found["codes"] == {}
    assert found["protocol"]["data"] == of_tokenizer["protocol"]["data"]
    assert found["values"]["psnr"]["value"] > 20 and "length" not in found["values"]


def test_a_codec_at_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = evaluate("--codec", "jpeg", "--quality", "61", "--out", str(tmp_path / "given"))
    rate = found["values"]["bits_per_pixel"]["value"]
    found = evaluate("--codec", "jpeg", "--bits-per-pixel", str(rate + 1e-6), "--out", str(tmp_path / "found"))
    assert found["values"]["bits_per_pixel"]["value"] == rate
    quality = found["subject"]["quality"]
    assert found["subject"] == {"codec": "jpeg", "quality": quality, "asked_bits_per_pixel": rate + 1e-6}
    assert f"jpeg {quality}: the quality whose rate comes nearest to" in capsys.readouterr().out
    found = evaluate("--codec", "webp", "--bits-per-pixel", "99", "--out", str(tmp_path / "highest"))
    assert found["subject"]["quality"] == 100


def test_a_prior(tmp_path: Path) -> None:
    arguments = ["--prior", "prior", "--count", "12", "--features", "random:test_resnet", "--sampling.top_k", "20"]
    found = evaluate(*arguments, "--out", str(tmp_path / "first"))
    values = {name: value["value"] for name, value in found["values"].items()}
    # what nothing has trained knows no more than that each code is one of 300
    assert values["content"] == pytest.approx(math.log(300), rel=0.05)
    nats = values["content_per_code"] + values["position_per_code"]
    assert values["bits_per_image"] == pytest.approx(nats / math.log(2) * values["length_of_data"])
    assert values["frechet_distance/random:test_resnet"] > 0 and values["length_distance"] > 0
    assert found["codes"]["drawn"]["samples"] == 12
    assert values["length_of_samples"] == found["codes"]["drawn"]["length"]["mean"]
    for name in ("length_of_samples", "length_of_data"):
        assert found["values"][name]["low"] < values[name] < found["values"][name]["high"]
    assert values["seconds_per_sample"] > 0 and "length" not in values and "seconds_per_image" not in values
    assert found["protocol"]["drawn"]["sampling"]["top_k"] == 20
    files = {path.name for path in (tmp_path / "first").iterdir()}
    assert files == {"metrics.json", "config.yaml", "report.html", "unfolding.gif"}
    assert found["subject"]["parameters"] > 10_000
    again = evaluate(*arguments, "--batch-size", "5", "--out", str(tmp_path / "second"))
    assert again["codes"] == found["codes"] and again["protocol"] == found["protocol"]
    for name, value in values.items():
        if name != "seconds_per_sample":
            assert again["values"][name]["value"] == pytest.approx(value, rel=1e-3), name


def evaluate_in_two(*arguments: str) -> dict:
    codes, said = run_in_two(["evaluate", *DATA, "--device=cpu", *arguments])
    assert codes == [0, 0], said
    return json.loads(Path(arguments[-1], "metrics.json").read_text())


def test_processes_share_the_work(of_tokenizer: dict, tmp_path: Path) -> None:
    # of 11 pictures in three batches, the processes have 5 and 6
    arguments = ["--tokenizer", "tokenizer", "--features", "random:test_resnet"]
    found = evaluate_in_two(*arguments, "--batch-size", "5", "--out", str(tmp_path))
    assert found["codes"] == of_tokenizer["codes"] and found["protocol"] == of_tokenizer["protocol"]
    for name, value in of_tokenizer["values"].items():
        if not name.startswith("seconds"):
            assert found["values"][name]["value"] == pytest.approx(value["value"], rel=1e-3), name


def test_a_process_without_draws_and_a_picture_that_only_the_other_one_meets(tmp_path: Path) -> None:
    write_pictures(tmp_path / "held_out", 6)
    (tmp_path / "held_out" / "person" / "zzz.png").write_bytes(b"no picture at all")
    held_out = ["--data.val_root", str(tmp_path / "held_out")]
    # the first process has range(0, 1 // 2) of the draws
    found = evaluate_in_two("--prior", "prior", "--count", "1", *held_out, "--out", str(tmp_path / "out"))
    assert found["environment"]["skipped"] == ["person/zzz.png"]
    assert found["values"]["seconds_per_sample"]["value"] > 0
    assert (found["protocol"]["data"]["images"], found["codes"]["drawn"]["samples"]) == (6, 1)


def test_a_class_that_the_prior_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = copy.deepcopy(PRIOR)
    config["init_args"]["classes"] = 1
    write_prior(tmp_path / "prior", config, fingerprint("tokenizer"))
    arguments = ["--prior", str(tmp_path / "prior"), "--tokenizer", "tokenizer", "--out", str(tmp_path / "out")]
    assert main(["evaluate", *arguments, *DATA, "--device", "cpu"]) == 1
    line = "a picture has label 1, but this prior knows 1 classes, labelled 0 to 0: give data with the classes"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what is measured: one of --tokenizer BUNDLE"),
        (["--codec", "jpeg", "--quality", "5", "--tokenizer", "tokenizer"], "say what is measured"),
        (["--codec", "jpeg"], "--codec takes one of --quality and --bits-per-pixel"),
        (["--codec", "jpeg", "--quality", "5", "--bits-per-pixel", "1"], "--codec takes one of --quality and"),
        (["--tokenizer", "tokenizer", "--quality", "5"], "and nothing else does"),
        (["--prior", "prior", "--bits-per-pixel", "5"], "and nothing else does"),
        (["--codec", "jpeg", "--bits-per-pixel", "0"], "--bits-per-pixel must be positive, not 0"),
        (["--codec", "jpeg", "--bits-per-pixel", "0.1"], "is too few for jpeg: its lowest quality takes"),
        (["--codec", "jpeg", "--quality", "99"], "--quality must lie between 1 and 95"),
        (["--codec", "gif", "--quality", "9"], "codec must be"),
        (["--prior", "prior", "--count", "0"], "--count must be at least 1, not 0"),
        (["--tokenizer", "tokenizer", "--features", "resnet"], "no feature network is called 'resnet'"),
        (["--tokenizer", "prior"], "prior"),
        (
            ["--tokenizer", "tokenizer", "--fixed", "tokenizer"],
            "has the factors [8, 4]: name a tokenizer with a single",
        ),
        (["--prior", "prior", "--fixed", "tokenizer"], "it belongs to --tokenizer"),
        (["--prior", "prior", "--lpips", "true"], "--lpips compares reconstructions with pictures: it belongs to"),
        (["--tokenizer", "tokenizer", "--count", "5"], "--count says how a prior draws: that belongs to --prior"),
        (
            ["--codec", "jpeg", "--quality", "5", "--count", "5", "--sampling.top_k", "5"],
            "--count and --sampling.top_k say how a prior draws",
        ),
        (
            ["--prior", "prior", "--count", "1", "--features", "random:test_resnet"],
            "a distance between sets of images needs at least 2 of each, not 1",
        ),
        (["--tokenizer", "nowhere"], "there is no bundle './nowhere'"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "out"), *DATA]) == 1
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vltok:")]
    assert len(shown) == 1 and message in shown[0]
    assert not (tmp_path / "out").exists()


def test_the_network_is_asked_for_and_the_report_is_named_last(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    evaluate("--codec", "webp", "--quality", "50", "--out", str(tmp_path))
    printed = capsys.readouterr()
    assert "name a network for it with --features" in printed.err
    assert printed.out.splitlines()[-1] == str(tmp_path / "report.html")


@pytest.mark.parametrize("pictures", [1, 2, 3])
@pytest.mark.parametrize(
    "measured",
    [
        ["--tokenizer", "tokenizer"],
        ["--prior", "prior"],
        ["--prior", "prior", "--count", "1"],
        ["--codec", "webp", "--bits-per-pixel", "20"],
    ],
    ids=" ".join,
)
def test_the_smallest_sets(
    measured: list[str], pictures: int, tmp_path: Path, capsys: pytest.CaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    write_pictures(tmp_path / "few", pictures)
    held_out = ["--data.val_root", str(tmp_path / "few")]
    if measured[0] == "--prior" and "--count" not in measured:
        measured = [*measured, "--count", str(pictures)]
    given = ["evaluate", *DATA, *held_out, "--device=cpu", *measured, "--out", str(tmp_path / "out")]
    assert main(given) == 0
    assert Record.read(tmp_path / "out").protocol["data"]["images"] == pictures
    features = ["--features", "random:test_resnet"]
    if min(pictures, 1 if "1" in measured else 3) == 1:
        assert main([*given, *features]) == 1
        assert "a distance between sets of images needs at least 2 of each, not 1" in capsys.readouterr().err
        return
    assert main([*given, *features]) == 0
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())["values"]
    distance = values["frechet_distance/random:test_resnet"]
    assert distance["value"] >= 0 and distance["note"] == f"biased: {pictures} images for 96 features"
    assert distance["note"] in (tmp_path / "out" / "report.html").read_text()
    assert main(["compare", str(tmp_path / "out"), "--out", str(tmp_path / "table")]) == 0
    assert all(distance["note"] in (tmp_path / "table" / name).read_text() for name in ("table.md", "table.csv"))
    assert values["kernel_distance/random:test_resnet"]["deviation"] is not None
    assert all(value["value"] is not None for value in values.values()), values
    assert not [str(warning.message) for warning in recwarn if "_pytree" not in str(warning.filename)]
