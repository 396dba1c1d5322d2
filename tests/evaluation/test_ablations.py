"""Tables of ablations: what a folder may hold."""

from pathlib import Path

import pytest
import yaml

from vltok.errors import UserError
from vltok.evaluation.ablations import AblationRun, AblationTable, Column
from vltok.evaluation.records import Record
from vltok.evaluation.values import Value
from vltok.io.recipe_names import Place, RecipeNames
from vltok.io.recipes import parse
from vltok.verbs.run_evaluation import plan_evaluation
from vltok.verbs.run_folder import RunFolder
from vltok.verbs.training_recipe import fit_parser

ROOT = Path(__file__).parents[2]
TABLES = sorted(path.parent for place in ("recipes", "plugins") for path in ROOT.glob(f"{place}/**/table.yaml"))
DESCRIPTION = {
    "title": "Gates",
    "source": "a test",
    "base": "../base.yaml",
    "columns": [
        {"key": "psnr", "heading": "PSNR", "unit": "dB", "format": ".2f"},
        {"key": "ratios.8", "heading": "share"},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "table").mkdir()
    (tmp_path / "base.yaml").write_text("seed_everything: 0")
    (tmp_path / "table" / "table.yaml").write_text(yaml.safe_dump(DESCRIPTION))
    for row in ("b", "a"):
        (tmp_path / "table" / f"{row}.yaml").write_text("trainer.max_steps: 2")
    return tmp_path / "table"


@pytest.mark.parametrize("name", ["...yaml", ".hidden.yaml", "table.md.yaml", "table.json.yaml"])
def test_a_row_is_a_folder_of_its_own(folder: Path, name: str) -> None:
    (folder / name).write_text("trainer.max_steps: 2")
    with pytest.raises(UserError, match=r"no row can be called '.*': give the file another name"):
        AblationTable.read(folder)


def test_a_folder_is_read(folder: Path) -> None:
    table = AblationTable.read(folder)
    assert (table.title, table.source, table.base) == ("Gates", "a test", folder / "../base.yaml")
    assert [column.means.title for column in table.columns] == ["PSNR [dB] ↑", "share"]
    assert list(table.rows) == ["a", "b"]
    assert table.evaluate is None
    (folder / "table.yaml").write_text(yaml.safe_dump({**DESCRIPTION, "evaluate": {"features": "inception"}}))
    assert AblationTable.read(folder).evaluate == {"features": "inception"}
    rates = ["mean-codes=83.2", "codes=64.0", "codes=64"]
    (folder / "table.yaml").write_text(yaml.safe_dump({**DESCRIPTION, "rates": rates}))
    assert AblationTable.read(folder).rates == ("mean-codes=83.2", "codes=64")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, "no key is called 'titel'; there are: title, source, base, columns, evaluate, rates; "),
        ({"base": None}, "base must be given"),
        ({"title": ["x"]}, "title must be str"),
        ({"base": "nowhere.yaml"}, "base is 'nowhere.yaml', but there is no"),
        ({"columns": []}, "columns must name at least one figure"),
        ({"columns": [{"key": "psnr", "heading": "x", "format": "q"}]}, "format must be one for numbers"),
        ({"columns": [{"key": "psnr", "haeding": "x"}]}, "did you mean 'heading'?"),
        ({"rates": ["psnr"]}, "rate 'psnr' must be one kind and its value"),
        ({"evaluate": "inception"}, "evaluate must be dict"),
    ],
)
def test_a_wrong_description_is_one_line(folder: Path, changes: dict, message: str) -> None:
    (folder / "table.yaml").write_text(yaml.safe_dump({**DESCRIPTION, **changes}))
    with pytest.raises(UserError, match=r"table\.yaml: ") as error:
        AblationTable.read(folder)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_is_missing_is_said(folder: Path, tmp_path: Path) -> None:
    (folder / "table.yaml").write_text("title: x\nbase: ../base.yaml")
    with pytest.raises(UserError, match="source and columns must be given"):
        AblationTable.read(folder)
    with pytest.raises(UserError, match=r"has no table\.yaml"):
        AblationTable.read(tmp_path)
    (folder / "table.yaml").write_text(yaml.safe_dump(DESCRIPTION))
    for row in ("a", "b"):
        (folder / f"{row}.yaml").unlink()
    with pytest.raises(UserError, match="has no rows"):
        AblationTable.read(folder)


def record(psnr: float, share: float | None = None) -> Record:
    values = {"psnr": Value(psnr)} | ({} if share is None else {"ratio_8_of_training": Value(share)})
    return Record("tokenizer", {"path": "a"}, values, {}, {"data": {}, "precision": "float32", "steps": 9}, {})


def test_a_figure_of_training_and_of_the_evaluation_have_two_headings() -> None:
    keys = ("psnr", "evaluation.psnr", "evaluation.values.ssim.value")
    table = AblationTable("t", "s", Path("b"), tuple(map(Column, keys)), {}, rates=("codes=7",))
    titles = [column.means.title for column in table.shown]
    assert titles[:3] == ["PSNR [dB] ↑", "PSNR of the evaluation [dB] ↑", "SSIM ↑"] and len(set(titles)) == 5
    own = AblationTable("t", "s", Path("b"), (Column("psnr"), Column("evaluation.psnr", "mine")), {})
    assert [column.means.name for column in own.shown] == ["PSNR", "mine"]


def test_a_figure_is_found_by_its_name_that_of_0_1_0_and_its_path() -> None:
    run = AblationRun("a", 0, record(25.0, 0.25), record(26.0))
    for key, figure in {"ratio_8_of_training": 0.25, "ratios.8": 0.25, "protocol.steps": 9, "ssim": None}.items():
        assert run.figure(key) == figure
    assert run.figure("evaluation.psnr") == run.figure("evaluation.values.psnr.value") == 26.0
    assert AblationRun("a", 0, record(25.0)).figure("evaluation.psnr") is None
    run = AblationRun("a", 0, record(25.0), at_rates={"mean-codes=83.2": record(26.0)})
    assert run.figure("mean-codes=83.2 psnr") == 26.0 and run.figure("mean-codes=121.6 psnr") is None


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("psnr", "PSNR [dB] ↑"),
        ("unseen_mean_length", "code length [codes] ↓"),
        ("ratios.8", "regions with factor 8 on training pictures"),
        ("evaluation.values.kernel_distance/timm:a.b.value", "kernel distance, timm:a.b ↓"),
        ("evaluation.subject.parameters", "parameters ↓"),
        ("protocol.steps", "steps"),
        ("mean-codes=83.2 psnr", "PSNR at mean-codes=83.2 [dB] ↑"),
    ],
)
def test_a_column_is_called_as_its_figure(key: str, title: str) -> None:
    assert Column(key).means.title == title
    own = Column(key, "mine", "s", ".1f")
    assert own.means.label == "mine [s]" and own.means.better == Column(key).means.better and own.form == ".1f"


def a_codebook(names: RecipeNames) -> list[tuple[Place, int]]:
    place = ("model", "prior", "spec", "codebook_size")
    return [(place, 512)] if names.lacks(place) else []


@pytest.mark.parametrize("table", TABLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_tables_here_ask_of_an_evaluation_is_understood(table: Path, tmp_path: Path) -> None:
    described = AblationTable.read(table)
    model = "prior" if "prior" in table.name or table.name in ("table7", "supplementary_table2") else "tokenizer"
    recipe = {"model": {"init_args": {model: {}}}, "data": {"class_path": "photos", "init_args": {"size": 64}}}
    options = described.evaluate or {}
    meant = plan_evaluation(options, recipe, RunFolder(tmp_path)).options
    assert {key: meant[key] for key in options if "." not in key} == {k: v for k, v in options.items() if "." not in k}


OWN_TABLES = [table for table in TABLES if ROOT / "recipes" in table.parents]  # which take no plug-in


@pytest.mark.parametrize("table", OWN_TABLES, ids=lambda path: str(path.relative_to(ROOT / "recipes" / "ablations")))
def test_every_row_of_the_tables_here_is_a_recipe(table: Path) -> None:
    described = AblationTable.read(table)
    parser, resolved = fit_parser(), []
    for path in described.rows.values():
        title, command = path.read_text(encoding="utf-8").splitlines()[:2]
        base, row = (file.resolve().relative_to(ROOT).as_posix() for file in (described.base, path))
        assert title.startswith("# ")
        assert command.startswith(f"# vltok fit --config {base} --config {row}")
        # a prior models whatever the codes are
        config = parse(parser, ["--config", str(described.base), "--config", str(path)], a_codebook)
        config.pop("config")
        resolved.append(parser.dump(config))
    assert len(set(resolved)) == len(resolved)
