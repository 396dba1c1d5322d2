"""The curves of a run, from the files that it logs to."""

from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from vltok.errors import UserError
from vltok.evaluation.curves import training_curves
from vltok.evaluation.training_logs import TrainingLog, is_run
from vltok.io.curve_files import CurveFile

CONFIG = """
model:
  init_args:
    tokenizer:
      init_args:
        gate: {class_path: feature, init_args: {channels: 8}}
        budget: {class_path: ratio, init_args: {ratios: {4: 0.3, 8: 0.7}}}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was resumed at step 20, after it had logged step 30."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    for start, length in ((10, 100.0), (20, 80.0)):
        file = CurveFile(tmp_path / "metrics.csv")
        for step in range(start, start + 30, 10):
            shares = {"ratio_4": step / 100, "ratio_8": 1 - step / 100}
            file.append({"step": step, "code_length": length + step, **shares, "budget": 2.0 / step})
            file.append({"step": step, "val_psnr": step / 2, "val_code_length": length})
    return tmp_path


def check(log: TrainingLog) -> None:
    assert not log.empty
    assert log.curves["length"][0] == (10, 20, 30, 40)
    # what was logged again counts
    assert log.curves["length"][1] == pytest.approx((110.0, 100.0, 110.0, 120.0))
    assert set(log.ratios) == {4, 8} and log.ratios[4][1] == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert log.curves["budget"][1][0] == pytest.approx(0.2)
    assert log.targets == {4: 0.3, 8: 0.7}


def test_the_curves_of_a_run(run: Path) -> None:
    assert is_run(run) and not is_run(run / "logs")
    log = TrainingLog.read(run)
    check(log)
    assert log.curves["val_psnr"] == ((10, 20, 30, 40), (5.0, 10.0, 15.0, 20.0))


def test_a_run_of_version_0_1_0_logged_to_tensorboard_alone(run: Path) -> None:
    (run / "metrics.csv").unlink()
    for start, length in ((10, 100.0), (20, 80.0)):
        with SummaryWriter(run / "logs", filename_suffix=f".{start}") as writer:
            for step in range(start, start + 30, 10):
                writer.add_scalar("code_length", length + step, step)
                writer.add_scalar("ratio_4", step / 100, step)
                writer.add_scalar("ratio_8", 1 - step / 100, step)
                writer.add_scalar("budget", 2.0 / step, step)
    check(TrainingLog.read(run))


def test_the_plots_show_the_curves(run: Path) -> None:
    log = TrainingLog.read(run)
    figures = training_curves({"a": log, "b": log})
    assert set(figures) == {"length", "ratios", "budget", "val_psnr", "val_length"}
    for name, label in (
        ("val_psnr", "PSNR [dB], held-out pictures"),
        ("val_length", "code length [codes], held-out pictures"),
    ):
        (axes,) = figures[name].axes
        assert axes.get_ylabel() == label and [line.get_label() for line in axes.lines] == ["a", "b"]
        assert list(axes.lines[0].get_xdata()) == [10, 20, 30, 40]
    (axes,) = figures["ratios"].axes
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    # of two granularities the one says what the other is
    assert [label for label in drawn if not label.startswith("_")] == ["a, factor 4", "b, factor 4"]
    assert drawn["a, factor 4"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert any(list(line) == [0.3, 0.3] for label, line in drawn.items() if label.startswith("_"))
    assert training_curves({}) == {}


def test_a_run_without_logs_has_no_curves(tmp_path: Path) -> None:
    assert TrainingLog.read(tmp_path).empty


def test_what_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n1,x\n")
    with pytest.raises(UserError, match="is not what vltok fit logs"):
        TrainingLog.read(tmp_path)
