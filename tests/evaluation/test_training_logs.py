"""The curves of a run, from TensorBoard files as Lightning writes them."""

from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from vltok.errors import UserError
from vltok.evaluation.curves import training_curves
from vltok.evaluation.training_logs import TrainingLog, is_run

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
        with SummaryWriter(tmp_path / "logs", filename_suffix=f".{start}") as writer:
            for step in range(start, start + 30, 10):
                writer.add_scalar("code_length", length + step, step)
                writer.add_scalar("ratio_4", step / 100, step)
                writer.add_scalar("ratio_8", 1 - step / 100, step)
                writer.add_scalar("budget", 2.0 / step, step)
    return tmp_path


def test_the_curves_of_a_run(run: Path) -> None:
    assert is_run(run) and not is_run(run / "logs")
    log = TrainingLog.read(run)
    assert not log.empty
    assert log.length[0] == (10, 20, 30, 40)
    # what was logged again counts
    assert log.length[1] == pytest.approx((110.0, 100.0, 110.0, 120.0))
    assert set(log.ratios) == {4, 8} and log.ratios[4][1] == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert log.budget[1][0] == pytest.approx(0.2)
    assert log.targets == {4: 0.3, 8: 0.7}


def test_the_plots_show_the_curves(run: Path) -> None:
    log = TrainingLog.read(run)
    figures = training_curves({"a": log, "b": log})
    assert set(figures) == {"length", "ratios", "budget"}
    (axes,) = figures["ratios"].axes
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    # of two granularities the one says what the other is
    assert [label for label in drawn if not label.startswith("_")] == ["a, factor 4", "b, factor 4"]
    assert drawn["a, factor 4"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert any(list(line) == [0.3, 0.3] for label, line in drawn.items() if label.startswith("_"))
    assert training_curves({}) == {}


def test_a_run_without_logs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no TensorBoard logs"):
        TrainingLog.read(tmp_path)
