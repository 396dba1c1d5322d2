"""A package of every kind is written, is found, holds its contract, and trains as it stands."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from setuptools import build_meta

from vltok import new, registry
from vltok.cli.main import main
from vltok.codes import CodeSpec
from vltok.verbs.new import NEW

from ..sequences.code_exports import export_codes, random_codes

OF_CODES = ("prior", "masked-prior", "text_encoder")


def name_of(kind: str) -> str:
    return f"my-{kind.replace('_', '-')}"


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with a package of each kind, and in `installed` the metadata that installing it would leave."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in NEW:
        package, installed = folder / name_of(kind), folder / "installed" / kind
        new(kind, name_of(kind), package)
        installed.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(package)
            build_meta.prepare_metadata_for_build_wheel(str(installed))
    return folder


@pytest.fixture
def installed(packages, monkeypatch) -> Path:
    """The packages, found as if they were installed."""
    for path in paths_of(packages):
        monkeypatch.syspath_prepend(path)
    yield packages
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    registry._import.cache_clear()


def paths_of(packages: Path) -> list[str]:
    return [str(path) for path in (*packages.glob("my-*/src"), *packages.glob("installed/*"))]


def test_each_package_passes_its_own_tests(packages) -> None:
    tests = [str(path) for path in sorted(packages.glob("my-*/tests"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *tests],
        cwd=packages,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths_of(packages))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert len(tests) == len(NEW)


@pytest.mark.parametrize("kind", [kind for kind in NEW if kind not in OF_CODES])
def test_each_recipe_trains(kind, installed, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(installed / name_of(kind))
    few = ("pictures", "held_out") if kind == "data" else ("train_crops", "val_crops")
    options = [f"--data.{few[0]}=32", f"--data.{few[1]}=8", "--trainer.max_steps=2", "--model.calibration_batches=1"]
    code = main(["fit", "--config", "recipe.yaml", "--out", str(tmp_path / "run"), *options])
    assert code == 0, capsys.readouterr().err
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert (f"class_path: my-{kind}\n" in text) == (kind not in ("importer", "exporter"))


@pytest.mark.parametrize(
    ("kind", "conditions"),
    [
        *((kind, []) for kind in OF_CODES),
        ("prior", ["--model.prior.classes=128", "--model.prior.label_dropout=0.1"]),
        ("prior", ["--model.prior.text_encoder=bytes"]),
    ],
)
def test_the_recipe_of_what_learns_from_codes_trains(
    kind, conditions, installed, tmp_path, monkeypatch, capsys
) -> None:
    spec = CodeSpec(256, (4, 8), (8, 8))
    for split, count in (("train", 128), ("val", 64)):
        codes = replace(random_codes(count, spec, (8, 8)), texts=("a red fox", *("",) * (count - 1)))
        export_codes(tmp_path / "codes" / split, codes, spec=spec)
    monkeypatch.chdir(tmp_path)
    recipe = str(installed / name_of(kind) / "recipe.yaml")
    few = ["--data.batch_size=8", "--trainer.max_steps=2"]
    assert main(["fit", "--config", recipe, *few, *conditions, "--out", "run"]) == 0, capsys.readouterr().err
    config = (tmp_path / "run" / "bundle" / "config.yaml").read_text()
    assert f"class_path: {name_of(kind)}" in config and f"distribution: {name_of(kind)}" in config
    values = json.loads((tmp_path / "run" / "metrics.json").read_text())["values"]
    assert ("bits_per_image" in values) == (kind != "masked-prior")


#: Appended to the README's commands, so that they take seconds: an option given twice counts the second time.
FEW = {
    "fit --config tokenizer.yaml": "--data.train_crops=32 --data.val_crops=8 --trainer.max_steps=2",
    "fit --config recipe.yaml": "--data.batch_size=8 --trainer.max_steps=2",
    "tokenize --tokenizer": "--data.train_crops=32 --data.val_crops=8",
    "sample --prior": "--count=2",
}


def test_the_readmes_way_from_nothing_to_a_prior_of_ones_own(tmp_path, monkeypatch, capsys) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## A component of your own.*?(?=^## )", readme, re.DOTALL | re.MULTILINE)[0]
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    commands = [line for block in blocks for line in block.splitlines()]
    assert commands[0].startswith("vltok new prior ") and commands[-1].startswith("vltok sample ")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "cd":
            monkeypatch.chdir(arguments[0])
        elif program == "pip":
            build_meta.prepare_metadata_for_build_wheel(str(tmp_path))
            monkeypatch.syspath_prepend(str(tmp_path))
            monkeypatch.syspath_prepend(str(Path("src").resolve()))
        elif program == "pytest":
            path = os.pathsep.join([str(tmp_path), str(Path("src").resolve())])
            subprocess.run(
                [sys.executable, "-m", "pytest", "-q"], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=600
            )
        else:
            few = next((options for start, options in FEW.items() if " ".join(arguments).startswith(start)), "")
            assert main([*arguments, *shlex.split(few)]) == 0, capsys.readouterr().err
    assert len(list(Path("samples").rglob("*.png"))) >= 2
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    registry._import.cache_clear()


def test_a_package_can_be_built_and_installed(packages, tmp_path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(tmp_path), str(packages / "my-gate")], check=True)
    (wheel,) = tmp_path.glob("my_gate-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    listed = subprocess.run(
        [sys.executable, "-m", "vltok", "plugins", "gate", "my-gate"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.startswith("gate my-gate: my_gate.gate.MyGate of my-gate 0.1.0")
    assert "ratios" in listed.stdout


def test_it_says_what_it_wrote(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "gate", "two-words"]) == 0
    assert "two-words" in capsys.readouterr().out
    files = {path.relative_to("two-words").as_posix() for path in Path("two-words").rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "pyproject.toml",
        "recipe.yaml",
        "src/two_words/__init__.py",
        "src/two_words/gate.py",
        "tests/test_gate.py",
    }
    assert "class TwoWords(Gate)" in Path("two-words/src/two_words/gate.py").read_text()
    assert main(["new", "prior", "other", "--out", "elsewhere/deep"]) == 0
    assert (tmp_path / "elsewhere" / "deep" / "tokenizer.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gat", "mine"], "no kind of component is called 'gat'"),
        (["gate", "Mine"], "'Mine' must be lower-case words"),
        (["gate", "my_gate"], "'my_gate' must be lower-case words"),
        (["gate", "../gate"], "'../gate' must be lower-case words"),
        (["gate", "2d-gate"], "'2d-gate' must be lower-case words"),
        (["gate", "entropy"], "gate 'entropy' is vltok's already"),
        (["gate", "torch"], "is that of a Python module already"),
        (["gate", "class"], "is that of a Python module already"),
        (["gate", "none"], "is that of a Python module already"),
        (["gate", "con"], "'con' is that of a device on Windows"),
        (["gate", "com1"], "'com1' is that of a device on Windows"),
        (["gate", "a" * 300], "must have at most 64 letters, not 300"),
        (["gate", "/etc/gate"], "'/etc/gate' must be lower-case words"),
        (["gate", ".."], "'..' must be lower-case words"),
        (["gate", "a\nb"], "must be lower-case words"),
        (["gate", "there"], "'there' exists"),
        (["gate", "mine", "--out", "file"], "'file' exists"),
    ],
)
def test_what_cannot_be_written_is_refused(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("kept")
    assert main(["new", *arguments]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and message in shown
    assert {path.name for path in tmp_path.iterdir()} == {"there", "file"}


@pytest.mark.parametrize("arguments", [[], ["gate"], ["gate", "mine", "more"]])
def test_missing_and_superfluous_words_are_one_line(arguments, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", *arguments]) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_help_shows_the_files_in_lines(capsys) -> None:
    assert main(["new", "--help"]) == 0
    assert "\n    tests/test_gate.py      holds it to vltok.testing's contract\n" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "article"), [("importer", "An"), ("gate", "A")])
def test_the_readme_names_the_kind(packages: Path, kind: str, article: str) -> None:
    assert f"\n{article} {kind} for " in (packages / name_of(kind) / "README.md").read_text()
