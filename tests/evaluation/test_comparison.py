"""Records side by side, and the refusal to mix protocols."""

import csv
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from vltok.errors import UserError
from vltok.evaluation.comparison import Comparison, named
from vltok.evaluation.curves import length_histograms, pareto_front, rate_distortion
from vltok.evaluation.records import Record
from vltok.evaluation.values import Value
from vltok.verbs.compare import compare

DATA = {"pixels": "abc", "split": "val", "size": 64, "images": 9}
FEATURES = {"name": "random:test_resnet", "weights": "0a", "package": "timm 1.0.31"}
VERSIONS = {"torchmetrics": "1.9.0", "pillow": "12.0"}
SAMPLES = ("length_of_samples", "length_distance", "frechet_distance/random:test_resnet")


def record(
    path: str = "a", psnr: float = 20.0, length: float = 64.0, device: str = "cpu, 1 threads", **protocol
) -> Record:
    values = {
        "psnr": Value(psnr, psnr - 1, psnr + 1),
        "length": Value(length),
        "bits_per_pixel": Value(length / 400),
        "frechet_distance/random:test_resnet": Value(100 / psnr),
        "error_correlation": Value(0.5),
        "ssim": Value(0.7),
        "seconds_per_image": Value(0.01),
    }
    codes = {"length": {"histogram": {str(int(length)): 5, str(int(length) + 6): 4}}}
    given = {"data": DATA, "features": FEATURES, "precision": "float32", "versions": VERSIONS, "lpips": None}
    whole = {**given, "fixed": "own", **protocol}
    return Record("tokenizer", {"path": path}, values, codes, whole, {"device": device})


def prior(values: dict[str, Value], count: int = 100, seed: int = 0, top_k: int | None = None) -> Record:
    drawn = {"count": count, "seed": seed, "sampling": {"top_k": top_k}}
    given = {"data": DATA, "features": FEATURES, "precision": "float32", "versions": VERSIONS, "drawn": drawn}
    return Record("prior", {"path": "prior"}, values, {}, given, {"device": "cuda"})


def codec(**protocol) -> Record:
    values = {"psnr": Value(25.0, 24.0, 26.0), "bits_per_pixel": Value(0.9)}
    whole = {"data": DATA, "features": None, "precision": "float32", "lpips": None, **protocol}
    return Record("codec", {"codec": "jpeg", "quality": 30}, values, {}, whole, {"device": "cuda"})


def test_a_table_of_what_each_has() -> None:
    lines = Comparison({"a": record(), "jpeg 30": codec()}).markdown().splitlines()
    heads = "PSNR [dB] ↑ | code length [codes] ↓ | rate [bits/pixel] ↓ | Fréchet distance, random:test_resnet ↓"
    heads += " | granularity and error at fixed length ↑ | SSIM ↑ | time of coding [s an image] ↓"
    assert lines[0] == f"|  | {heads} |"
    assert lines[2] == "| a | 20.00 (19.00 to 21.00) | 64.0 | 0.160 | 5 | 0.500 | 0.700 | 0.01 |"
    assert lines[3] == "| jpeg 30 | 25.00 (24.00 to 26.00) | – | 0.900 | – | – | – | – |"


def test_a_bar_in_a_name_ends_no_cell() -> None:
    assert Comparison({"a|b": record()}).markdown().splitlines()[2].startswith("| a\\|b | 20.00 (19.00 to 21.00) |")


def test_a_table_as_csv(tmp_path: Path) -> None:
    Comparison({"a": record(), "jpeg 30": codec()}).write(tmp_path)
    with (tmp_path / "table.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["psnr"], first["psnr low"], first["length high"]) == ("20.0", "19.0", "")
    assert (second["row"], second["length"]) == ("jpeg 30", "")


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"data": {**DATA, "split": "train"}}, r"'psnr' of 'a' and 'b' .* data\.split is val and train"),
        ({"data": {**DATA, "size": 32}}, r"data\.size is 64 and 32"),
        ({"data": {**DATA, "pixels": "x"}}, r"data\.pixels is abc and x"),
        ({"precision": "bfloat16"}, "precision is float32 and bfloat16"),
        ({"fixed": "0f"}, "'error_correlation' of .* fixed is own and 0f"),
        ({"features": {**FEATURES, "weights": "0b"}}, r"'frechet_.*' of .* features\.weights is 0a and 0b"),
        (
            {"features": {**FEATURES, "package": "timm 2.0"}},
            r"'frechet_.*' of .* features\.package is timm 1\.0",
        ),
        (
            {"versions": {**VERSIONS, "torchmetrics": "2.0"}},
            r"'frechet_.*' of .* versions\.torchmetrics is 1\.9",
        ),
    ],
)
def test_two_protocols_do_not_share_a_column(protocol: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Comparison({"a": record(), "b": record(**protocol)})


def test_what_a_figure_does_not_depend_on_may_differ() -> None:
    # the codec has no distance, so that its lack of a network does not count, nor does its device
    other = {**VERSIONS, "pillow": "13.0"}  # the pixels say whether that made a difference
    Comparison(
        {"a": record(), "jpeg 30": codec(), "b": record(lpips={"name": "vgg16", "weights": "1"}, versions=other)}
    )


def test_a_timing_of_two_machines_is_left_out() -> None:
    comparison = Comparison({"a": record(), "b": record(device="cuda")})
    assert comparison.columns == [name for name in record().values if name != "seconds_per_image"]
    assert "seconds" not in comparison.markdown()
    assert comparison.notes == [
        "'seconds_per_image' of 'a' and 'b' was measured under two protocols: environment.device is cpu, 1 threads and "
        "cuda; it is left out of the table"
    ]
    same = Comparison({"a": record(), "b": record()})
    assert "seconds_per_image" in same.columns and same.notes == []


@pytest.mark.parametrize("column", SAMPLES)
@pytest.mark.parametrize(
    ("other", "message"), [({"count": 50}, "count is 100 and 50"), ({"seed": 1}, "seed is 0 and 1")]
)
def test_figures_of_samples_depend_on_how_many_were_drawn(column: str, other: dict, message: str) -> None:
    values = {column: Value(3.0)}
    with pytest.raises(UserError, match=rf"'{column}' of .* drawn\.{message}"):
        Comparison({"a": prior(values), "b": prior(values, **other)})
    Comparison({"a": prior(values), "b": prior(values, top_k=3)})
    held_out = {"bits_per_image": Value(9.0), "length_of_data": Value(80.0)}
    Comparison({"a": prior(held_out), "b": prior(held_out, **other)})


def test_rows_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    for name, written in (("one", record("same")), ("two", record("same")), ("three", codec())):
        written.write(tmp_path / name)
    found = named([tmp_path / name for name in ("one", "two", "three")])
    assert list(found) == [str(tmp_path / "one"), str(tmp_path / "two"), "jpeg 30"]
    for again in (tmp_path / "one", tmp_path / "two" / ".." / "one"):
        with pytest.raises(UserError, match="given twice"):
            compare([tmp_path / "one", tmp_path / "two", again])


def test_the_front_is_what_no_other_beats() -> None:
    points = [(64.0, 20.0), (256.0, 26.0), (160.0, 19.0), (128.0, 23.0), (128.0, 22.0), (300.0, 26.0)]
    assert pareto_front(points, higher=True) == [(64.0, 20.0), (128.0, 23.0), (256.0, 26.0)]
    lower = [(rate, -quality) for rate, quality in points]
    assert pareto_front(lower, higher=False) == [(64.0, -20.0), (128.0, -23.0), (256.0, -26.0)]


def legend(figure: Figure) -> set[str]:
    (found,) = figure.legends
    return {text.get_text() for text in found.get_texts()}


def test_curves_show_what_the_records_hold() -> None:
    records = {"a": record(), "b": record("b", psnr=24.0, length=160.0), "jpeg 30": codec()}
    # as of equal figures: by rounding the mean is no part of its interval
    records["b"].values["bits_per_pixel"] = Value(0.4, 0.4 + 1e-15, 0.4 + 1e-15)
    comparison = Comparison(records)
    (axes,) = rate_distortion(comparison, "bits_per_pixel", "psnr").axes
    assert axes.get_xlabel() == "rate [bits/pixel] ↓" and axes.get_ylabel() == "PSNR [dB] ↑"
    front = next(line for line in axes.lines if line.get_label() == "none is better at both")
    assert list(zip(*front.get_data(), strict=True)) == [(0.16, 20.0), (0.4, 24.0), (0.9, 25.0)]
    assert legend(rate_distortion(comparison, "length", "psnr")) == {"a", "b", "none is better at both"}
    assert rate_distortion(comparison, "length", "lpips") is None
    drawn = {
        f"prior {length}": prior({"length_of_samples": Value(length), "fid": Value(9.0)}) for length in (50.0, 60.0)
    }
    (axes,) = rate_distortion(Comparison(drawn), "length_of_samples", "fid").axes
    assert axes.get_xlabel() == "code length of drawn images [codes]"
    assert legend(length_histograms(records)) == {"a", "b"}
    assert length_histograms({"jpeg 30": codec()}) is None
