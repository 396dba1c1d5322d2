"""The documentation: it builds, every command and block of code in it runs, and it looks right in a browser."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vltok
from vltok.cli.main import VERBS
from vltok.registry import KINDS

from .evaluation.browser import NoBrowser, open_page
from .readers import ROOT, add_prior, blocks_of, commands_of, make_project, run

DOCS = ROOT / "docs"
PAGES = {
    str(page.relative_to(DOCS)): page.read_text(encoding="utf-8")
    for page in sorted(DOCS.rglob("*.md"))
    if "runs" not in page.parts
}
README = {
    command
    for block in blocks_of((ROOT / "README.md").read_text(encoding="utf-8"), "sh")
    for command in commands_of(block)
}
#: In numbers that suit the tiny prior of these tests.
TINY = {"--codes 100": "--codes 10"}


def runs_with_the_readme(page: str) -> bool:
    """Whether all that a page has to run is in the README, too, whose tests run it."""
    commands = {command for block in blocks_of(PAGES[page], "sh") for command in commands_of(block)}
    return commands <= README and not blocks_of(PAGES[page], "python")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[Path]:
    folder = make_project(tmp_path_factory.mktemp("reader"), pictures=2)
    add_prior(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The pages as `make docs` builds them, where a warning is an error; apart, for autodoc changes signatures."""
    folder = tmp_path_factory.mktemp("docs")
    options = ["--fresh-env", "--fail-on-warning", "--keep-going", "--quiet", "-d", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.parametrize("page", [page for page in PAGES if not runs_with_the_readme(page)])
def test_every_command_and_every_block_of_code_runs(page, project) -> None:
    names: dict[str, object] = {}
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(block, names)
            continue
        for command in commands_of(block):
            for written, tiny in TINY.items():
                command = command.replace(written, tiny)
            run(command)


def test_each_verb_and_each_kind_has_a_page() -> None:
    shown = {verb for verb in VERBS if f'{{{{ help("{verb}") }}}}' in PAGES[f"verbs/{verb}.md"]}
    assert shown == set(VERBS)
    kinds = re.findall(r'\{\{ components\("(.*?)"\) \}\}', "".join(PAGES.values()))
    assert sorted(kinds) == sorted(KINDS)


def test_there_is_no_other_kind_of_block() -> None:
    kinds = {kind for text in PAGES.values() for kind in re.findall(r"^```(\S+)", text, flags=re.MULTILINE)}
    assert kinds == {"sh", "python", "text", "{toctree}"}


@pytest.mark.docs
def test_reference_and_texts_of_the_repository_are_in_it(built: Path) -> None:
    gates = (built / "components" / "gates.html").read_text(encoding="utf-8")
    for entry in vltok.plugins("gate"):
        assert entry.distribution != "vltok" or f'id="gate-{entry.name}"' in gates
    functions = (built / "api" / "vltok.html").read_text(encoding="utf-8")
    assert all(f'id="vltok.{verb}"' in functions for verb in ("fit", "Codes", "Codes.to_code_map", "load_tokenizer"))
    assert "--training-pictures" in (built / "verbs" / "rate.html").read_text(encoding="utf-8")
    assert "Laws of the house" in (built / "contributing.html").read_text(encoding="utf-8")


@pytest.mark.docs
def test_each_link_leads_somewhere(built: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in built.rglob("*.html")}
    places = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in texts.items()}
    for path, text in texts.items():
        assert not re.search(r'<(?:script|img|link)[^>]* (?:src|href)="https?:', text), f"{path} needs a network"
        for link in re.findall(r'<a [^>]*href="([^"]+)"', text):
            target, _, place = link.partition("#")
            found = (path.parent / target).resolve() if target else path
            if not re.match(r"https?:|mailto:", link):
                assert found.exists(), f"{path}: {link}"
                assert not place or found not in places or place in places[found], f"{path}: {link}"


@pytest.mark.docs
def test_it_fits_a_phone_and_the_dark(built: Path) -> None:
    try:
        with open_page(390, 800) as page:
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
            page.emulate_media(color_scheme="dark")
            for name in ("index", "tutorial", "verbs/evaluate", "api/vltok"):
                page.goto(f"file://{built / name}.html")
                assert page.evaluate("document.documentElement.scrollWidth") == 390, name
            assert not errors
            page.goto(f"file://{built / 'concepts' / 'orders'}.html")
            words = page.locator(".panels text:not(.upon)").first
            ink = words.evaluate("text => getComputedStyle(text).fill")
            paper = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
            assert abs(_brightness(ink) - _brightness(paper)) > 100
    except NoBrowser as error:
        pytest.skip(str(error))


def _brightness(color: str) -> float:
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3


def test_the_shown_tutorial_is_whole() -> None:
    """Its outputs are those of one run from the first cell to the last."""
    cells = json.loads((DOCS / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    counted = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counted == list(range(1, len(counted) + 1))
    assert not [each for cell in cells for each in cell.get("outputs", ()) if each["output_type"] == "error"]
