"""The way of a prior that reads embeddings: from pictures with vectors to drawn ones, by command and from Python."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vltok
from vltok.cli.main import main
from vltok.evaluation.records import Record
from vltok.sequences.manifest import CodeManifest

from .conditioned import pictures_that_have, recipe, write_project
from .exports import contents
from .runs import one_line

#: How many numbers an embedding has: the colours of a picture of 2 × 2 pixels.
SIZE = 12
DATA = pictures_that_have("embeddings", "npy")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, codes of pictures with embeddings, and a fitted prior."""

    def embed(picture: Path) -> None:
        thumbnail = Image.open(picture).convert("RGB").resize((2, 2), Image.Resampling.BOX)
        np.save(picture.with_suffix(".npy"), np.asarray(thumbnail).ravel() / 64 - 2)

    folder = tmp_path_factory.mktemp("project")
    return write_project(folder, "embeddings", recipe("raster-scan", f"embedding_size: {SIZE}"), DATA, embed)


@pytest.fixture(autouse=True)
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def embeddings_of(folder: Path) -> np.ndarray:
    manifest = CodeManifest.read(folder)
    samples = [sample for shard in manifest.shards for sample in manifest.read_samples(folder, shard)]
    return np.stack([sample.embedding for sample in samples])


def test_codes_carry_the_embeddings_of_their_pictures(project: Path) -> None:
    assert CodeManifest.read(project / "codes" / "val").embedding_size == SIZE
    found = embeddings_of(project / "codes" / "train")
    beside = {np.load(path).astype(np.float32).tobytes() for path in project.glob("pictures/*/*.npy")}
    assert found.dtype == np.float32 and {vector.tobytes() for vector in found} <= beside
    assert (project / "runs" / "embeddings" / "samples.png").is_file()


def test_an_evaluation_tells_what_embeddings_are_worth(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["evaluate", "--prior=runs/embeddings/bundle", "--count=3", "--device=cpu", "--examples=1"]
    assert main([*command, *DATA, "--out", str(tmp_path / "evaluated")]) == 0
    figures = Record.read(tmp_path / "evaluated")
    assert figures.figure("bits_per_image_of_other_embeddings") != figures.figure("bits_per_image")
    assert main([*command, *DATA, "--data.embeddings=null", "--out", str(tmp_path / "nothing")]) == 1
    assert "these codes have no embeddings, which a prior with an embedding_size learns from" in one_line(capsys)


def test_samples_follow_embeddings_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = embeddings_of(Path("codes/val"))[:2]
    np.save(tmp_path / "two.npy", rows.astype(np.float64))
    command = ["sample", "--prior=runs/embeddings/bundle", "--device=cpu", "--guidance=2", "--batch-size=2"]
    given = [*command, f"--embeddings={tmp_path / 'two.npy'}", "--out", str(tmp_path / "out")]
    assert main([*given, "--count=2"]) == 0
    assert main([*given, "--count=5"]) == 0
    assert np.array_equal(embeddings_of(tmp_path / "out" / "codes"), rows[[0, 1, 0, 1, 0]])
    whole = [*command, f"--embeddings={tmp_path / 'two.npy'}", "--count=5", "--out", str(tmp_path / "whole")]
    assert main(whole) == 0
    assert contents(tmp_path / "out" / "pictures") == contents(tmp_path / "whole" / "pictures")
    np.save(tmp_path / "other.npy", rows[::-1])
    assert main([*command, f"--embeddings={tmp_path / 'other.npy'}", "--out", str(tmp_path / "out")]) == 1
    assert "--embeddings" in one_line(capsys)
    drawn = vltok.sample("runs/embeddings/bundle", 3, embeddings=rows, device="cpu")
    assert np.array_equal(drawn.codes.embeddings.numpy(), rows[[0, 1, 0]])
    # it has learned images without one too
    assert vltok.sample("runs/embeddings/bundle", 2, device="cpu").codes.embeddings is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt=a"], "--prompts: this prior reads no texts: leave it out"),
        (["--embeddings=nowhere.npy"], "--embeddings 'nowhere.npy' cannot be read (No such file or directory)"),
        (["--embeddings=pictures"], "--embeddings 'pictures' cannot be read (Is a directory)"),
        (["--embeddings=narrow.npy"], "--embeddings 'narrow.npy' must be [n 12], one embedding a row"),
        (["--embeddings=one.npy"], "it must be [n e], not [12]"),
        (["--embeddings=nan.npy"], "it holds a number that is not finite"),
        (["--embeddings=text.npy"], "--embeddings 'text.npy' has no readable embedding"),
    ],
)
def test_what_is_wrong_with_embeddings_is_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arrays = {"narrow": np.zeros((2, 3)), "one": np.zeros(12), "nan": np.full((1, 12), np.nan)}
    for name, array in arrays.items():
        np.save(name, array)
    Path("text.npy").write_text("0, 1, 2")
    assert main(["sample", "--prior=runs/embeddings/bundle", "--out", str(tmp_path / "out"), *options]) == 1
    assert message in one_line(capsys)


def test_a_prior_and_codes_that_do_not_go_together_are_one_line(capsys: pytest.CaptureFixture) -> None:
    command = ["fit", "--config=embeddings.yaml", "--out=other"]
    assert main([*command, "--model.prior.embedding_size=13"]) == 1
    assert "the embeddings in codes/train have 12 numbers: set --model.prior.embedding_size 12" in one_line(capsys)
    assert main([*command, "--model.prior.classes=2"]) == 1
    assert "a prior with an embedding_size knows none: leave classes out" in one_line(capsys)
