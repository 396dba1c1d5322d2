"""`vltok compare`: the table and the plots of evaluated codecs."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vltok.cli.main import main
from vltok.io.curve_files import CurveFile


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for quality in (20, 60):
        _evaluate(folder, quality, 6)
    return folder


def _evaluate(folder: Path, quality: int, count: int, name: str | None = None) -> None:
    out = str(folder / (name or f"jpeg-{quality}"))
    arguments = ["--data.size=32", f"--data.val_crops={count}", "--device=cpu", "--out", out]
    assert main(["evaluate", "--codec", "jpeg", "--quality", str(quality), *arguments]) == 0


def test_a_table_and_plots(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [str(project / "jpeg-20"), str(project / "jpeg-60")]
    assert main(["compare", *runs, "--out", str(tmp_path)]) == 0
    plots = {f"{quality}_bits_per_pixel.png" for quality in ("psnr", "psnr_pooled", "ssim")}
    assert {path.name for path in tmp_path.iterdir()} == {"table.md", "table.csv", *plots}
    table = (tmp_path / "table.md").read_text()
    assert "| jpeg 20 |" in table and "| jpeg 60 |" in table and table in capsys.readouterr().out
    with Image.open(tmp_path / "psnr_bits_per_pixel.png") as picture:
        assert len(set(picture.convert("L").getdata())) > 50


def test_other_pictures_do_not_go_into_one_table(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _evaluate(tmp_path, 20, 5, "other")
    capsys.readouterr()
    assert main(["compare", str(project / "jpeg-20"), str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err
    assert "two protocols: data.pixels is " in line and line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_timing_of_another_machine_is_left_out(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = json.loads((project / "jpeg-60" / "metrics.json").read_text())
    found["environment"]["device"] = "another"
    (tmp_path / "metrics.json").write_text(json.dumps(found))
    assert main(["compare", str(project / "jpeg-20"), str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    line = capsys.readouterr().err
    assert "'seconds_per_image' of 'jpeg 20' and 'jpeg 60'" in line and "environment.device is" in line
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| PSNR [dB] ↑ |" in table and "time of coding" not in table and line.count("\n") == 1


def write_run(folder: Path, logged: dict[str, list[float]]) -> Path:
    """What `vltok fit` leaves, as far as curves need it."""
    folder.mkdir()
    (folder / "config.yaml").write_text("{model: {init_args: {tokenizer: {class_path: dq-vae}}}}")
    file = CurveFile(folder / "metrics.csv")
    for step in range(max(map(len, logged.values()))):
        values = {tag: values[step] for tag, values in logged.items() if step < len(values)}
        file.append({"step": 50 * step, **values})
    return folder


def test_run_folders_give_curves(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_run(
        tmp_path / "run", {"code_length": [200.0, 170.0, 161.0], "ratio_8": [0.4, 0.5], "ratio_4": [0.6, 0.5]}
    )
    assert main(["compare", str(run), "--out", str(tmp_path / "alone")]) == 0
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {"training_length.png", "training_ratios.png"}
    shutil.copytree(project / "jpeg-20", run / "evaluation")
    runs = [str(run), str(project / "jpeg-60")]
    assert main(["compare", *runs, "--out", str(tmp_path / "both")]) == 0
    assert "| jpeg 20 |" in (tmp_path / "both" / "table.md").read_text()
    assert (tmp_path / "both" / "training_length.png").exists()
    capsys.readouterr()
    assert main(["compare", runs[0], runs[0], "--out", str(tmp_path / "twice")]) == 1
    assert "a run is given twice" in capsys.readouterr().err


def test_a_run_without_curves_must_have_been_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_run(tmp_path / "prior", {"loss": [4.0, 3.0]})
    assert main(["compare", str(run), "--out", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err
    assert (
        "has nothing to compare: no code length" in line
        and "trainer.log_every_n_steps" in line
        and line.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert "vltok evaluate writes it" in capsys.readouterr().err
