"""That priors are measured at every stage of their training, and that what is done is not done again."""

from pathlib import Path

import pytest
import yaml

import vltok
from tests.cli.exports import PRIOR, write_bundle
from vltok.evaluation.records import Record

from .orders import Stage, curves, stages, table, train


def test_a_prior_is_measured_after_each_quarter(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tokenizer")
    pictures = {"class_path": "photos", "init_args": {"size": 16, "train_crops": 32, "val_crops": 9, "workers": 0}}
    vltok.tokenize(tmp_path / "tokenizer", pictures, out=tmp_path / "codes", split="train")
    recipe = {
        "model": {"class_path": "vltok.training.PriorTraining", "init_args": {"prior": PRIOR, "warmup_steps": 1}},
        "data": {"class_path": "codes", "init_args": {"root": str(tmp_path / "codes"), "batch_size": 4, "workers": 0}},
        "trainer": {"accelerator": "cpu", "num_sanity_val_steps": 0},
    }
    (tmp_path / "prior.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    train(tmp_path / "prior.yaml", 8, 1, run, {"model.learning_rate": 0.05})
    network = "random:resnet18"
    found = list(stages(run, pictures, 4, network))
    assert [stage.steps for stage in found] == [2, 4, 6, 8]
    assert len({stage.bits for stage in found}) == len({stage.distance for stage in found}) == 4
    assert all(0 < stage.positions < stage.bits for stage in found)
    record = Record.read(run / "measured" / "8")
    nats = {part: record.figure(f"{part}_per_code") for part in ("position", "content")}
    assert found[-1].positions == pytest.approx(found[-1].bits * nats["position"] / sum(nats.values()))
    times = {path: path.stat().st_mtime_ns for path in run.rglob("metrics.json")}
    assert list(stages(run, pictures, 4, network)) == found
    assert {path: path.stat().st_mtime_ns for path in run.rglob("metrics.json")} == times


def test_the_table_and_the_plots_have_every_prior() -> None:
    one = [Stage(2, 10.0, 1.0, 0.5), Stage(4, 8.0, 1.0, 0.25)]
    other = [Stage(2, 12.0, 1.0, 0.5), Stage(4, 8.0, 1.0, 0.25)]
    rows = table({"a": [one, other], "b": [one]}).splitlines()
    assert rows[2] == "| `a`: bits an image | 11 ± 1 | 8 ± 0 |" and "| `b`: kernel distance | 0.500 | 0.250 |" in rows
    (axes,) = curves({"a": [one, other], "b": [one]}, "bits", "distance", ("bits", "distance")).axes
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert [list(line.get_xdata()) for line in axes.lines] == [[11.0, 8.0], [10.0, 8.0]]
