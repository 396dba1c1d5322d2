"""The file of a run's curves."""

import math
from pathlib import Path

import pytest

from vltok.errors import UserError
from vltok.io.curve_files import CurveFile, read_rows


def test_a_figure_that_comes_in_later_gets_a_column(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.csv"
    file = CurveFile(path)
    rows = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": math.inf}, {"step": 2, "val_loss": 1 / 3, "epoch": 0}]
    for row in rows:
        file.append(row)
        assert read_rows(path)[-1] == row
    assert read_rows(path) == rows
    assert path.read_text().splitlines()[0] == "step,loss,val_loss,epoch"


def test_a_resumed_training_goes_on_where_it_repeats_a_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for steps, loss in (((1, 2, 3), 1.0), ((2, 3, 4), 2.0)):
        file = CurveFile(path)
        for step in steps:
            file.append({"step": step, "loss": loss})
    assert [(row["step"], row["loss"]) for row in read_rows(path)] == [(1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)]
    CurveFile(path).append({"step": 5, "psnr": 20.0})
    assert read_rows(path)[-1] == {"step": 5, "psnr": 20.0} and read_rows(path)[0] == {"step": 1, "loss": 1.0}


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,0.25\n2,0.1")
    assert read_rows(path) == [{"step": 1, "loss": 0.25}]
    CurveFile(path).append({"step": 3, "loss": 0.5})
    assert path.read_text() == "step,loss\n1,0.25\n3,0.5\n"


@pytest.mark.parametrize("text", ["step,loss\n1,x\n", "a,b\n1,2\n", "step\n1,2,3\n"])
def test_what_is_no_such_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UserError, match="is not what vltok fit logs"):
        read_rows(tmp_path / "metrics.csv")
