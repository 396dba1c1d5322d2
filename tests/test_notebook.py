"""The tutorial, and with it the quickstart's way by functions alone, cell by cell at a tiny size."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from setuptools import build_meta

import vltok
from vltok import registry
from vltok.pictures.photos import Photos

from .readers import ROOT

CELLS = [
    "".join(cell["source"])
    for cell in json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]
#: Laid over what the first cell changes of the recipes.
TINY = {"data.size": 16, "data.train_crops": 8, "data.val_crops": 6, "data.batch_size": 4}
TINY |= {"model.tokenizer.encoder.width": 32, "model.tokenizer.decoder.width": 32, "model.calibration_batches": 1}


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What the cells of the tutorial leave."""
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(CELLS[0], found)
    found["SMALL"] |= TINY
    found["STEPS"] |= {"trainer.max_steps": 3}  # the last training takes a third of them
    for cell in CELLS[1:]:
        if installed := re.match(r"%pip install .* (\S+)$", cell.strip()):
            _find(Path(installed[1]), monkeypatch)
        else:
            exec(cell, found)
    yield found
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    registry._import.cache_clear()


def _find(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package be found as if it were installed."""
    here = Path.cwd()
    (here / "installed").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(package)
        build_meta.prepare_metadata_for_build_wheel(str(here / "installed"))
    for folder in (package / "src", Path("installed")):
        monkeypatch.syspath_prepend(folder.resolve())
    importlib.invalidate_caches()


def test_from_photographs_to_drawn_pictures(names: dict, capsys: pytest.CaptureFixture) -> None:
    assert {"tokenizer", "prior", "mine", "codes", "samples"} <= {path.name for path in names["RUNS"].iterdir()}
    assert {path.name for path in Path.cwd().iterdir()} == {"runs", "installed"}
    assert "class_path: my-gate" in (names["other"].bundle / "config.yaml").read_text(encoding="utf-8")

    capsys.readouterr()
    tokenizer, prior = names["tokenizer"], names["prior"]
    decoded = vltok.detokenize("runs/tutorial/codes/val", "pictures", tokenizer=tokenizer)
    assert decoded.pictures == len(list(Path("pictures").rglob("*.png"))) == 6
    drawn = vltok.sample(prior.bundle, 3, seed=1)
    again = vltok.sample(vltok.load_prior(prior.bundle), 3, tokenizer=tokenizer, seed=1)
    assert torch.equal(drawn.pictures, again.pictures)
    data = Photos(size=16, val_crops=6, batch_size=6)
    measured = vltok.evaluate(tokenizer, data, device="cpu", examples=1)
    same = vltok.reconstruct(tokenizer, next(iter(data.val_dataloader())).images)
    assert measured.record.figure("psnr") == pytest.approx(same.record.figure("psnr"), abs=1e-3)
    assert capsys.readouterr().out == ""
