"""The way of a prior that reads texts: from described pictures to drawn ones, on the command line and from Python."""

from pathlib import Path

import pytest

import vltok
from vltok.cli.main import main
from vltok.evaluation.records import Record
from vltok.sequences.manifest import CodeManifest

from .conditioned import pictures_that_have, recipe, write_project
from .exports import contents, run_in_two
from .runs import one_line

READS = "text_encoder: {class_path: bytes, init_args: {transformer: {width: 8, heads: 2, layers: 1}, longest: 8}}"
DATA = pictures_that_have("texts", "txt")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, codes of pictures with texts, and a fitted prior."""

    def describe(picture: Path) -> None:
        picture.with_suffix(".txt").write_text(f"a {picture.parent.name}, number {picture.stem}")

    folder = tmp_path_factory.mktemp("project")
    return write_project(folder, "texts", recipe("dq-transformer", READS), DATA, describe)


@pytest.fixture(autouse=True)
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def texts_of(folder: Path) -> list[str | None]:
    manifest = CodeManifest.read(folder)
    return [sample.text for shard in manifest.shards for sample in manifest.read_samples(folder, shard)]


def test_codes_are_described_and_a_prior_learns_from_them(project: Path) -> None:
    assert CodeManifest.read(project / "codes" / "val").described
    assert all(text.startswith("a ") for text in texts_of(project / "codes" / "val"))
    assert Record.read(project / "runs" / "texts").figure("bits_per_image") > 0
    assert (project / "runs" / "texts" / "samples.png").is_file()


def test_samples_follow_prompts_and_say_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["sample", "--prior=runs/texts/bundle", "--device=cpu", "--guidance=2", "--batch-size=2"]
    prompts = ["--prompt", "a cat", "--prompt", "a person, number 1"]
    assert main([*command, "--count=2", *prompts, "--out", str(tmp_path / "one")]) == 0
    assert main([*command, "--count=5", *prompts, "--out", str(tmp_path / "one")]) == 0
    assert texts_of(tmp_path / "one" / "codes") == ["a cat", "a person, number 1"] * 2 + ["a cat"]
    (tmp_path / "prompts.txt").write_text("\ufeffa cat\n\n  a person, number 1 \n", encoding="utf-8")
    assert main([*command, "--count=5", f"--prompts={tmp_path / 'prompts.txt'}", "--out", str(tmp_path / "two")]) == 0
    assert contents(tmp_path / "one" / "pictures") == contents(tmp_path / "two" / "pictures")
    assert main([*command, "--count=6", "--prompt=a dog", "--out", str(tmp_path / "one")]) == 1
    assert "--prompts" in one_line(capsys)
    drawn = vltok.sample("runs/texts/bundle", 3, prompts=["a cat", ""], device="cpu")
    assert drawn.codes.texts == ("a cat", "", "a cat")
    # it has learned images without a text too
    assert vltok.sample("runs/texts/bundle", 2, device="cpu").codes.texts is None


def test_an_evaluation_tells_what_texts_are_worth(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["evaluate", "--prior=runs/texts/bundle", "--count=7", "--batch-size=2", "--device=cpu", "--examples=1"]
    assert main([*command, *DATA, "--out", str(tmp_path / "evaluated")]) == 0
    figures = Record.read(tmp_path / "evaluated")
    assert figures.figure("bits_per_image_of_other_texts") != figures.figure("bits_per_image")
    # each process reads some of the texts, and what it draws and compares with takes those of all
    codes, said = run_in_two([*command, *DATA, "--out", str(tmp_path / "in_two")])
    assert codes == [0, 0], said
    in_two = Record.read(tmp_path / "in_two")
    assert in_two.codes == figures.codes
    for name, value in figures.values.items():
        assert name.startswith("seconds") or in_two.values[name] == value, name
    assert main([*command, *DATA, "--data.texts=null", "--out", str(tmp_path / "nothing")]) == 1
    assert "this prior reads texts, but the pictures have none" in one_line(capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels=0", "--prompt=a"], "this prior knows no classes: leave it out"),
        (["--prompts=nowhere"], "--prompts 'nowhere' cannot be read (No such file or directory)"),
        (["--prompts=empty"], "--prompts 'empty' holds no text: write one a line"),
        (["--prompts=latin"], "--prompts 'latin' is not UTF-8"),
        (["--prompt=a", "--prompts=empty"], "--prompt and --prompts both say what is drawn"),
    ],
)
def test_what_is_wrong_with_prompts_is_one_line(
    options: list[str], message: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (project / "empty").write_text("\n \n")
    (project / "latin").write_bytes(b"caf\xe9")
    assert main(["sample", "--prior=runs/texts/bundle", "--out", str(tmp_path / "out"), *options]) == 1
    assert message in one_line(capsys)
