"""The figures of a table over the seeds: as Markdown, CSV and JSON, which reads back."""

import csv
import json
import math
import statistics
from pathlib import Path

import pytest

from vltok.errors import UserError
from vltok.evaluation.ablation_results import AblationResults, Spread
from vltok.evaluation.ablations import AblationRun, AblationTable, Column
from vltok.evaluation.records import Record
from vltok.evaluation.values import Value

FOLDER = {"kind": "folder", "root": "my pictures", "pictures": 775, "size": 16, "split": {"held_out": "by hash"}}
COLUMNS = (Column("psnr"), Column("ratios.8", "share"), Column("evaluation.values.ssim.value"))
TABLE = AblationTable("Gates", "a test", Path("base.yaml"), COLUMNS, {"a": Path("a.yaml"), "b": Path("b.yaml")})


def record(psnr: float, share: float | None = None, length: float = 64.0, data: dict | None = FOLDER) -> Record:
    values = {"psnr": Value(psnr), "length": Value(length)}
    values |= {} if share is None else {"ratio_8_of_training": Value(share)}
    protocol = {
        "data": {"split": "val", "size": 16, "images": 48},
        "precision": "float32",
        "steps": 9,
        "training_data": {"description": data},
    }
    return Record("tokenizer", {"path": "a"}, values, {}, protocol, {})


def runs(data: dict | None = FOLDER) -> list[AblationRun]:
    images = {"length": [60.0, 70.0], "l1": [0.01, 0.02], "psnr": [20.0, math.inf]}
    return [
        AblationRun("a", 1, record(25.0, 0.25, 66.0, data), images=images),
        AblationRun("a", 0, record(24.0, 0.75, 62.0, data), images=images),
        AblationRun("b", 0, record(23.456)),
        AblationRun("b", 1, record(math.inf)),
    ]


def test_the_spread_is_that_of_a_sample() -> None:
    values = [24.0, 25.0, 27.0]
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(statistics.fmean(values))
    assert spread.deviation == pytest.approx(statistics.stdev(values))
    assert spread.shown(".2f", runs=3) == "25.33 ± 1.53"
    assert spread.shown(".2f", runs=5) == "25.33 ± 1.53 (n = 3)"
    assert Spread.of([3.0, math.nan, None]).shown(".1f", runs=1) == "3.0" and Spread.of([]) is None


def test_the_table_in_three_forms(tmp_path: Path) -> None:
    results = AblationResults.of(TABLE, runs())
    lines = results.markdown().splitlines()
    told = "folder 'my pictures' (775 pictures): 48 held-out pictures of 16 × 16"
    assert lines[0] == f"Gates (a test). {told}. Mean ± standard deviation over n seeds."
    assert lines[2:] == [
        "|  | PSNR [dB] ↑ | share | SSIM ↑ | n |",
        "| --- | --- | --- | --- | --- |",
        "| a | 24.50 ± 0.71 | 50.0% ± 35.4% | – | 2 |",
        "| b | 23.46 (n = 1) | – | – | 2 |",
    ]
    results.write(tmp_path)
    assert (tmp_path / "table.md").read_text() == results.markdown()
    with (tmp_path / "table.csv").open() as file:
        first, second = csv.DictReader(file)
    assert float(first["psnr mean"]) == 24.5 and float(first["psnr deviation"]) == pytest.approx(0.5**0.5)
    assert second["ratios.8 mean"] == "" and second["ratios.8 n"] == "0"
    assert (second["n"], second["psnr n"]) == ("2", "1")
    tree = json.loads((tmp_path / "table.json").read_text())
    assert tree["columns"][0] == {"key": "psnr", "heading": "PSNR", "unit": "dB", "format": ".2f"}
    row = tree["rows"][0]
    assert row["seeds"] == [0, 1] and row["figures"]["psnr"]["values"] == [24.0, 25.0]
    assert row["data"][0]["name"] == "folder" and row["data"][0]["place"] == "my pictures"
    assert row["codes"]["training"]["values"] == [62.0, 66.0] and row["images"]["length"] == [60.0, 70.0] * 2
    assert "ratios.8" not in tree["rows"][1]["figures"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = AblationResults.of(TABLE, runs())
    results.write(tmp_path)
    read = AblationResults.read(tmp_path / "table.json")
    assert read.markdown() == results.markdown() and read.rows == results.rows
    assert "[24.0, 25.0]" in (tmp_path / "table.json").read_text()
    # as it was before there were data, codes and pictures
    tree = json.loads((tmp_path / "table.json").read_text())
    for row in tree["rows"]:
        row.pop("data"), row.pop("codes"), row.pop("images")
    (tmp_path / "table.json").write_text(json.dumps(tree))
    assert AblationResults.read(tmp_path / "table.json").markdown().startswith("Gates (a test). Mean ± ")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"title": 1, "source": 2, "columns": [{}], "rows": []}', "[" * 5000])
def test_another_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(UserError, match="is not what vltok ablate writes") as error:
        AblationResults.read(tmp_path / "table.json")
    assert "\n" not in str(error.value)


def test_rows_may_have_data_of_their_own() -> None:
    told = AblationResults.of(TABLE, runs({**FOLDER, "kind": "photos", "root": None})).data
    assert told.split("; ") == [
        "photos (775 pictures): 48 held-out pictures of 16 × 16",
        "folder 'my pictures' (775 pictures): 48 held-out pictures of 16 × 16",
    ]
