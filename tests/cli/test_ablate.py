"""`vltok ablate`: rows times seeds as processes of their own, and the table of what they measured."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

import vltok
from vltok.cli.main import main
from vltok.errors import UserError
from vltok.evaluation.records import Record
from vltok.verbs.ablating import AblationOutcome

from .exports import start_process
from .runs import RECIPE

TABLE = """
title: Gates
source: a test
base: ../base.yaml
columns: [{key: psnr, heading: PSNR, unit: dB, format: .2f}, {key: protocol.steps, heading: steps, format: .0f}]
"""

ONE_STEP = {"trainer": {"max_steps": 1}}
ROW = "model.tokenizer.gate: random\nmodel.tokenizer.gate.ratios: {4: 0.5, 8: 0.5}"


def write_table(folder: Path) -> None:
    """A table of one row."""
    (folder / "base.yaml").write_text(RECIPE)
    (folder / "table").mkdir()
    (folder / "table" / "table.yaml").write_text(TABLE)
    (folder / "table" / "good.yaml").write_text(ROW)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of two rows, the second of which fails."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path)
    Path("table/wrong.yaml").write_text("data: {class_path: folder, init_args: {root: nowhere}}")
    return Path("table")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AblationOutcome, list[str]]:
    """Where a notebook ran a table of one row, what came of it, and what it was told."""
    folder, lines = tmp_path_factory.mktemp("notebook"), list[str]()
    write_table(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, vltok.ablate("table", "out", seeds=[3], overrides=ONE_STEP, progress=lines.append), lines


@pytest.fixture
def trained(notebook: tuple[Path, object, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that table, whose run is there."""
    shutil.copytree(notebook[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("table")


def test_runs_that_end_are_in_the_table_and_those_that_fail_are_named(
    table: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["ablate", str(table), "--out", "out", "--seeds", "3", "--jobs", "2", "--trainer.max_steps", "1"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err == "vltok: error: 1 of 2 runs failed: wrong, seed 3; their .log files say why\n"
    assert "/2] good, seed 3: " in printed.out
    (failure,) = [line for line in printed.out.splitlines() if "/2] wrong, seed 3: failed after" in line]
    assert "nowhere" in failure
    found = Record.read(Path("out/good/seed-3"))
    assert found.protocol["seed"] == 3 and found.protocol["steps"] == 1
    assert (
        f"| good | {found.values['psnr'].value:.2f} | 1 | 1 |\n| wrong | – | – | 0 |"
        in Path("out/table.md").read_text()
    )
    assert Path("out/table.md").read_text() in printed.out

    # what has finished is not repeated, and no other recipe takes its place
    before = Path("out/good/seed-3/metrics.json").stat().st_mtime_ns
    config = Path("out/good/seed-3/config.yaml")
    config.write_text(re.sub(r"\n *betas:(\n *- .*)+", "", config.read_text()))  # as if written before there were any
    assert "betas" not in config.read_text()
    (table / "wrong.yaml").unlink()
    assert main(arguments) == 0
    assert "1 of 1 runs have finished before" in capsys.readouterr().out
    assert Path("out/good/seed-3/metrics.json").stat().st_mtime_ns == before
    assert main([*arguments, "--model.tokenizer.quantizer.size", "8"]) == 1
    line = capsys.readouterr().err
    assert "holds a run of another recipe" in line and "quantizer.init_args.size is 16 there and 8 here" in line


def test_a_column_that_no_run_fills_is_told(trained: Path) -> None:
    description = (trained / "table.yaml").read_text()
    (trained / "table.yaml").write_text(description.replace("{key: psnr,", "{key: pnsr}, {key: psnr,"))
    lines: list[str] = []
    vltok.ablate(trained, "out", seeds=[3], overrides=ONE_STEP, progress=lines.append)
    assert [line.partition(":")[0] for line in lines] == [
        "1 of 1 runs have finished before",
        "no run has a figure 'pnsr'",
    ]


def test_a_notebook_runs_a_table(notebook: tuple[Path, AblationOutcome, list[str]], trained: Path) -> None:
    _, outcome, lines = notebook
    assert (outcome.folder, outcome.runs, outcome.failures) == (Path("out"), 1, ())
    assert lines[0].startswith("[1/1] good, seed 3: ") and "| good |" in outcome.results.markdown()
    # what has been trained is measured at a rate without training again
    before = Path("out/good/seed-3/metrics.json").stat().st_mtime_ns
    outcome = vltok.ablate(trained, "out", seeds=[3], overrides=ONE_STEP, rates=["codes=7", " codes=7"])
    (run,) = outcome.finished
    assert outcome.failures == () and Path("out/good/seed-3/metrics.json").stat().st_mtime_ns == before
    assert run.evaluation is None and run.figure("codes=7 length") == 7
    (row,) = json.loads(Path("out/table.json").read_text())["rows"]
    assert row["figures"]["codes=7 psnr"]["values"] == [run.at_rates["codes=7"].figure("psnr")]
    assert "| code length at codes=7 [codes] ↓ | PSNR at codes=7 [dB] ↑ |" in outcome.results.markdown()
    assert outcome.files[-2:] == (Path("out/rates_psnr.svg"), Path("out/report.html"))

    # what was measured is drawn again, without training; what had been written is the same
    written = [path.read_bytes() for path in outcome.files]
    shutil.rmtree(trained)
    again = vltok.ablate("out/table.json", "again")
    assert again.results.rows == outcome.results.rows and (again.runs, again.finished) == (0, ())
    assert [path.read_bytes() for path in again.files] == written
    with pytest.raises(UserError, match="was measured before, and is drawn again: it takes no options but --out"):
        vltok.ablate("out/table.json", "again", rates=["codes=8"])


def test_a_rate_that_is_refused_costs_no_figure_of_the_training(trained: Path) -> None:
    lines: list[str] = []
    outcome = vltok.ablate(trained, "out", seeds=[3], overrides=ONE_STEP, rates=["codes=99"], progress=lines.append)
    assert outcome.failures == ("good, seed 3",) and "can have 16 codes, not 99" in lines[0]
    (run,) = outcome.finished
    assert run.at_rates == {} and f"| good | {run.figure('psnr'):.2f} | 1 | – | – | 1 |" in outcome.results.markdown()


def test_runs_are_evaluated(trained: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["ablate", str(trained), "--out", "out", "--seeds", "3", "--trainer.max_steps", "1"]
    # what was trained before the table asked for an evaluation is not trained again
    before = Path("out/good/seed-3/metrics.json").stat().st_mtime_ns
    columns = "columns: [{key: evaluation.values.ssim.value, heading: SSIM, format: .3f}]"
    evaluate = "evaluate: {features: 'random:test_resnet', batch_size: 2, data.val_crops: 7}"
    description = TABLE[: TABLE.index("columns")]
    (trained / "table.yaml").write_text(f"{description}{columns}\n{evaluate}\n")
    assert main(arguments) == 0
    folder = Path("out/good/seed-3")
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    found = json.loads((folder / "evaluation" / "metrics.json").read_text())
    # on the pictures of the run's own recipe, but for what the table changes
    assert found["protocol"]["data"]["size"] == 16 and found["protocol"]["data"]["images"] == 7
    assert found["subject"]["parameters"] > 1000
    assert f"| good | {found['values']['ssim']['value']:.3f} | 1 |" in capsys.readouterr().out
    assert "report.html" in (folder.parent / "seed-3.evaluation.log").read_text()

    # what has been evaluated is not measured again, unless the table asks for something else; an option that came
    # later, and is not given, asks for nothing
    config = folder / "evaluation" / "config.yaml"
    assert "regions: null\n" in config.read_text()
    config.write_text(re.sub(r" *regions: null\n", "", config.read_text()))
    written = (folder / "evaluation" / "metrics.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert "1 of 1 runs have finished before" in capsys.readouterr().out
    assert (folder / "evaluation" / "metrics.json").stat().st_mtime_ns == written
    (trained / "table.yaml").write_text(f"{description}{columns}\nevaluate: {{features: inceptoin}}\n")
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "no feature network is called 'inceptoin'" in printed.out and "1 of 1 runs failed" in printed.err


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ("{probe_pior: false}", "did you mean '--probe-prior'?"),
        ("{featurs: inception}", "did you mean '--features'?"),
        ("{out: somewhere}", "out is set by the table itself"),
        ("{data.val_crop: 4}", "did you mean 'val_crops'?"),
        ("{examples: many}", "examples must be int"),
        ("[features]", "evaluate must be dict"),
    ],
)
def test_wrong_options_of_an_evaluation_are_found_before_anything_runs(
    table: Path, capsys: pytest.CaptureFixture, evaluate: str, message: str
) -> None:
    (table / "table.yaml").write_text(f"{TABLE}\nevaluate: {evaluate}\n")
    (table / "wrong.yaml").unlink()
    assert main(["ablate", "table", "--out", "out"]) == 1
    line = capsys.readouterr().err
    assert "evaluate" in line and message in line and line.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.faults
def test_an_interrupt_ends_what_is_running(table: Path) -> None:
    (table / "wrong.yaml").unlink()
    command = ["ablate", "table", "--out", "out", "--seeds", "0", "--trainer.max_steps", "1000000"]
    process = start_process(command, Path("said"))
    config = Path("out/good/seed-0/config.yaml")
    while not config.is_file() and process.is_alive():
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    child = int(children.read_text().split()[0]) if children.exists() else None
    os.kill(process.pid, signal.SIGINT)
    process.join(120)
    assert process.exitcode == 130
    assert Path("said").read_text() == "vltok: interrupted: what is running is stopped; the same command goes on\n"
    assert not Path("out/good/seed-0/metrics.json").exists()
    if child is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the first argument is the table"),
        (["--out", "out"], "the first argument is the table"),
        (["table"], "with --out DIR"),
        (["nowhere", "--out", "out"], "has no table.yaml"),
        (["table", "--out", "base.yaml"], "is a file: name a folder"),
        (["table", "--out", "out", "--rates", "code=7"], "did you mean 'codes'?"),
        (["table", "--out", "out", "--jobs", "0"], "--jobs must be at least 1, not 0"),
        (["table", "--out", "out", "--seeds", "1", "1"], "--seeds must differ, not 1 1"),
        (["table", "--out", "out", "--config", "other.yaml"], "--config is set by the table itself"),
        (["table", "--out", "out", "--seed_everything=4"], "--seed_everything is set by the table itself"),
        (["table", "--out", "out", "--model.tokenizer.gate", "entrpy"], "did you mean 'entropy'?"),
    ],
)
def test_what_is_wrong_is_one_line(
    table: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    assert main(["ablate", *arguments]) == 1
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert not Path("out").exists()


def test_a_wrong_row_is_found_before_anything_runs(table: Path, capsys: pytest.CaptureFixture) -> None:
    (table / "wrong.yaml").write_text("model.tokenizer.gate.ratioz: {4: 1}")
    assert main(["ablate", "table", "--out", "out"]) == 1
    line = capsys.readouterr().err
    assert "table/wrong.yaml: " in line and "did you mean 'ratios'?" in line and line.count("\n") == 1
    assert not Path("out").exists()


def test_seeds_are_numbers(table: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["ablate", "table", "--out", "out", "--seeds", "one"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture) -> None:
    assert main(["ablate", "--help"]) == 0
    assert "vltok ablate TABLE_DIR --out DIR" in capsys.readouterr().out
