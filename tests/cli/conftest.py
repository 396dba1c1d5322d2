"""Runs that many tests of the command line look at."""

import shutil
from pathlib import Path

import pytest

from vltok.cli.main import main

from .runs import RECIPE


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe of the runs, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path / "tiny.yaml"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run, and what was printed."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "tiny.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.chdir(folder)
        patch.setattr("builtins.print", lambda *texts, **_: printed.append(" ".join(map(str, texts))))
        assert main(["fit", "--config", "tiny.yaml", "--model.tokenizer.quantizer.size", "24"]) == 0
    return folder / "runs" / "tiny", "\n".join(printed)


@pytest.fixture
def run(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the finished run, to change."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))
