"""`vltok recipes`."""

from pathlib import Path

import pytest

from vltok.cli.main import main

RECIPES = Path(__file__).parents[2] / "recipes"


def test_lists_every_recipe_with_a_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(RECIPES.glob("*.yaml")))
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_prints_one_as_it_is(capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes", "ffhq_dq"]) == 0
    assert capsys.readouterr().out == (RECIPES / "ffhq_dq.yaml").read_text(encoding="utf-8")


def test_a_copy_is_understood_wherever_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes", "ffhq_dq"]) == 0
    copy = tmp_path / "mine.yaml"
    copy.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["fit", "--config", str(copy), "--print_config"]) == 0
    assert "ffhq-train" in capsys.readouterr().out


def test_an_unknown_name_tells_the_nearest(capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes", "quickstat"]) == 1
    assert "did you mean 'quickstart'?" in capsys.readouterr().err
