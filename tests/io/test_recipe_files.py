"""Recipes that name a base, and those that come with vltok."""

from pathlib import Path

import pytest

from vltok.errors import UserError
from vltok.io.recipe_files import recipe_text, recipes_folder, shipped_recipes, with_bases
from vltok.io.recipes import parse, read
from vltok.verbs.training_recipe import fit_parser

ROOT = Path(__file__).parents[2]


def parsed(path: Path, *arguments: str) -> dict:
    return parse(fit_parser(), ["--config", str(path), *arguments]).as_dict()


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A recipe whose base has a base, each in a folder of its own."""
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "first.yaml").write_text(
        "seed_everything: 1\ndata: {class_path: photos, init_args: {size: 64, batch_size: 8}}\n"
        "model: {class_path: vltok.training.TokenizerTraining, init_args: {learning_rate: 0.5}}\n"
    )
    (tmp_path / "bases" / "second.yaml").write_text("base: first.yaml\ndata.size: 96\nseed_everything: 2\n")
    (tmp_path / "mine.yaml").write_text("base: bases/second.yaml\ndata.batch_size: 4\n")
    return tmp_path / "mine.yaml"


def test_a_recipe_changes_its_base_and_that_one_its_own(family: Path) -> None:
    assert [path.name for path in with_bases(family, read)] == ["first.yaml", "second.yaml", "mine.yaml"]
    # a whole recipe would need a tokenizer; what the parser says of this one comes after all three were read
    with pytest.raises(UserError, match="needs tokenizer"):
        parsed(family)


def test_the_later_recipe_wins_and_options_win_over_all(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: ffhq_dq.yaml\nmodel.tokenizer.budget.ratios: {8: 0.25, 16: 0.75}\ntrainer.max_epochs: 3\n")
    found = parsed(mine, "--trainer.max_epochs=4")
    tokenizer = found["model"]["init_args"]["tokenizer"]["init_args"]
    assert tokenizer["budget"]["init_args"]["ratios"] == {8: 0.25, 16: 0.75}  # its own
    assert found["data"]["init_args"]["shards"] == "ffhq-train-{000000..000069}.tar"  # its base's
    assert tokenizer["encoder"]["init_args"]["factors"] == [8, 16]  # its base's base's
    assert found["trainer"]["max_epochs"] == 4


def test_what_is_dumped_is_whole_and_names_no_base(tmp_path: Path) -> None:
    parser = fit_parser()
    whole = tmp_path / "whole.yaml"
    whole.write_text(parser.dump(parse(parser, ["--config", str(ROOT / "recipes" / "ffhq_dq.yaml")]), skip_unset=False))
    assert "base" not in read(whole)
    again = parsed(whole)
    assert again["data"] == parsed(ROOT / "recipes" / "ffhq_dq.yaml")["data"]


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("missing.yaml", "changes 'missing.yaml', which is neither beside it nor among the recipes of vltok"),
        ("mine.yaml", "is its own base"),
        ("other.yaml", "is its own base"),
        ("[1]", "must be the path of a recipe, not \\['1'\\]|must be the path of a recipe, not \\[1\\]"),
        ("''", "must be the path of a recipe, not ''"),
    ],
)
def test_what_is_wrong_with_a_base_is_one_line(tmp_path: Path, base: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {base}\n")
    (tmp_path / "other.yaml").write_text("base: mine.yaml\n")
    with pytest.raises(UserError, match=said):
        parsed(tmp_path / "mine.yaml")


def test_a_base_is_no_option() -> None:
    with pytest.raises(UserError, match="base is a key of recipes, not an option"):
        parse(fit_parser(), ["--base", "x.yaml"])


def test_the_recipes_that_come_with_vltok_are_those_of_the_repository() -> None:
    assert recipes_folder() == ROOT / "recipes"
    assert set(shipped_recipes()) == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert recipe_text("quickstart") == recipe_text("quickstart.yaml")


def test_a_recipe_changes_a_component_by_a_dotted_key(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "base: quickstart.yaml\nmodel.tokenizer.gate: random\nmodel.tokenizer.gate.ratios: {4: 0.5, 8: 0.5}\n"
    )
    gate = parsed(tmp_path / "mine.yaml")["model"]["init_args"]["tokenizer"]["init_args"]["gate"]
    assert gate["class_path"].endswith("RandomGate") and gate["init_args"]["ratios"]
