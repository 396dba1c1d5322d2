"""The command itself: what it prints, what it returns, and what it does not import."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vltok.cli import main as command
from vltok.cli.main import VERBS, main
from vltok.errors import UserError
from vltok.version import __version__

HEAVY = ("torch", "lightning", "jsonargparse", "timm", "numpy", "rich", "yaml")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option: str) -> None:
    program = (
        "import sys; from vltok.cli.main import main; "
        f"code = main([{option!r}]); print(*sorted(sys.modules)); sys.exit(code)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.splitlines()[-1].split())
    assert not loaded & set(HEAVY)


def test_help_lists_every_verb_in_a_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb, purpose in VERBS.items():
        assert any(line.split() == [verb, *purpose.split()] for line in lines)


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vltok {__version__}\n"


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture) -> None:
    assert main([]) == 0
    assert "usage: vltok VERB" in capsys.readouterr().out


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture) -> None:
    assert main(["plugin"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "no verb is called 'plugin'" in line and "did you mean 'plugins'?" in line


def test_the_help_of_every_verb_loads_no_torch() -> None:
    program = (
        "import sys; from vltok.cli.main import main\n"
        f"for verb in {list(VERBS)}:\n"
        "    assert main([verb, '--help']) == 0 and 'torch' not in sys.modules, verb"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)


def test_every_verb_answers_help(capsys: pytest.CaptureFixture) -> None:
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        assert f"usage: vltok {verb}" in capsys.readouterr().out


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Make the verb `fit` raise an error."""

    def install(error: BaseException) -> None:
        def run(arguments: list[str]) -> None:
            assert "--debug" not in arguments
            raise error

        monkeypatch.setattr(command.importlib, "import_module", lambda name: SimpleNamespace(run=run))

    return install


def test_a_user_error_is_one_line(failing, capsys: pytest.CaptureFixture) -> None:
    failing(UserError("key 'a'\n  is 3"))
    assert main(["fit"]) == 1
    assert capsys.readouterr().err == "vltok: error: key 'a' is 3\n"


def test_an_error_of_others_code_is_one_line(failing, capsys: pytest.CaptureFixture) -> None:
    failing(ZeroDivisionError("by zero"))
    assert main(["fit"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("vltok: error: test_main.py, line ") and shown.count("\n") == 1
    assert "raised ZeroDivisionError: by zero" in shown


@pytest.mark.parametrize("arguments", [["--debug", "fit"], ["fit", "--debug"], ["fit", "--config", "a", "--debug"]])
def test_debug_shows_the_traceback(failing, capsys: pytest.CaptureFixture, arguments: list[str]) -> None:
    failing(UserError("wrong"))
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and shown.endswith("vltok: error: wrong\n")


def test_an_interrupt_has_its_own_code(failing, capsys: pytest.CaptureFixture) -> None:
    failing(KeyboardInterrupt("continue with --resume"))
    assert main(["fit"]) == 130
    assert capsys.readouterr().err == "vltok: interrupted: continue with --resume\n"


def test_wrong_arguments_are_one_line_without_usage(capsys: pytest.CaptureFixture) -> None:
    assert main(["plugins", "--nothing"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "--nothing" in shown


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (None, "recipe 'recipe.yaml' cannot be read"),
        ("model.tokenizer.gate: {class_path: entrpy}", "no gate is called 'entrpy'; there are"),
        ("model: {init_args: {prior: {class_path: dq-tranformer}}}", "did you mean 'dq-transformer'?"),
        ("data: foldr", "no data is called 'foldr'; there are"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_before_torch_is_loaded(
    recipe: str | None, said: str, tmp_path: Path
) -> None:
    if recipe is not None:
        (tmp_path / "recipe.yaml").write_text(recipe)
    program = (
        "import sys; from vltok.cli.main import main; "
        "code = main(['fit', '--config', 'recipe.yaml']); print(code, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == "1 False\n"
    assert said in run.stderr and run.stderr.count("\n") == 1
