"""The way of a prior: codes, `vltok fit`, its bundle, `vltok sample`; at a tiny size on real photographs."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import vltok
from vltok.cli.main import main
from vltok.evaluation.records import Record
from vltok.io.bundles import fingerprint
from vltok.sequences.manifest import CodeManifest

from .exports import PRIOR, contents, write_bundle, write_pictures, write_prior

RECIPE = """
seed_everything: 5
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: dq-transformer
      init_args: {codebook_size: 300, factors: [4, 8], regions: [2, 2], width: 16, heads: 2,
                  position_layers: 1, content_layers: 1, classes: 2, label_dropout: 0.2}
    learning_rate: 1.0e-2
data: {class_path: codes, init_args: {root: codes/train, validation: codes/val, batch_size: 8, workers: 0}}
trainer: {accelerator: cpu, max_steps: 4, num_sanity_val_steps: 0}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, codes of pictures in two classes, a fitted prior, and what was printed."""
    folder = tmp_path_factory.mktemp("project")
    write_bundle(folder / "tokenizer")
    write_pictures(folder / "pictures", 30)
    (folder / "prior.yaml").write_text(RECIPE)
    data = ["--data=folder", "--data.root=pictures", "--data.size=16", "--data.workers=0", "--data.val_share=0.3"]
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.chdir(folder)
        patch.setattr("builtins.print", lambda *texts, end="\n", **_: printed.append(" ".join(map(str, texts)) + end))
        for split in ("train", "val"):
            export = ["tokenize", "--tokenizer", "tokenizer", "--split", split, "--out", f"codes/{split}"]
            assert main([*export, *data]) == 0
        assert main(["fit", "--config", "prior.yaml"]) == 0, printed[-1]
    (folder / "printed.txt").write_text("".join(printed))
    return folder


@pytest.fixture
def prior(project: Path) -> str:
    return str(project / "runs" / "prior" / "bundle")


@pytest.fixture
def line(capsys: pytest.CaptureFixture):
    """The one line of an error."""

    def read() -> str:
        shown = capsys.readouterr().err
        (found,) = [line for line in shown.splitlines() if line.startswith("vltok:")]
        assert "Traceback" not in shown and "unexpected" not in found
        return found

    return read


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted((folder / "pictures").glob("*.png"))}


def test_a_run_of_a_prior_leaves_all_its_files(project: Path) -> None:
    run = project / "runs" / "prior"
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "logs",
        "metrics.csv",
        "checkpoints",
        "bundle",
        "metrics.json",
        "samples.png",
    }
    with Image.open(run / "samples.png") as picture:
        assert picture.width > 2 * 4 * 16  # pictures and coding maps


def test_the_figures_of_a_prior(project: Path) -> None:
    record = Record.read(project / "runs" / "prior")
    figures = {name: value.value for name, value in record.values.items()}
    held_out = CodeManifest.read(project / "codes" / "val").statistics
    nats = figures["position_per_code"] + figures["content_per_code"]
    assert figures["bits_per_code"] == pytest.approx(nats / math.log(2))
    assert figures["bits_per_image"] == pytest.approx(figures["bits_per_code"] * held_out["length"]["mean"])
    assert figures["loss"] == pytest.approx(figures["position"] + figures["content"])
    assert 0 < figures["unigram_per_code"] < 2 * math.log(300)
    below = 1 - figures["content_per_code"] / figures["unigram_per_code"]
    assert figures["content_below_unigram"] == pytest.approx(below)
    assert figures["codes_per_second"] > 0
    assert figures["samples_per_second"] > 0
    protocol = record.protocol
    assert (protocol["steps"], protocol["seed"]) == (4, 5)
    assert protocol["sequences"]["unseen"] == held_out["samples"]
    assert protocol["tokenizer"] == fingerprint(project / "tokenizer")
    printed = " ".join((project / "printed.txt").read_text().split())
    assert f"content of a unigram model {figures['unigram_per_code']:.4f} nats a code" in printed
    assert f" position ↓ {figures['position']:.4f} nats a token" in printed


def test_the_bundle_of_a_prior_finds_its_tokenizer(project: Path, prior: str, tmp_path: Path) -> None:
    assert vltok.load_prior(prior).classes == 2
    assert Path(vltok.find_tokenizer(prior)).samefile(project / "tokenizer")
    # wherever both are moved
    shutil.copytree(project / "tokenizer", tmp_path / "tokenizer")
    shutil.copytree(prior, tmp_path / "runs" / "prior" / "bundle")
    found = vltok.find_tokenizer(tmp_path / "runs" / "prior" / "bundle")
    assert Path(found).samefile(tmp_path / "tokenizer")


def test_pictures_maps_codes_and_a_grid(project: Path, prior: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "samples"
    command = ["sample", "--prior", prior, "--count", "5", "--out", str(out), "--device=cpu", "--labels", "1,0"]
    assert main(command) == 0
    assert {path.name for path in out.iterdir()} == {"pictures", "coding_maps", "codes", "grid.png"}
    found = pixels(out)
    assert list(found) == [f"{image:06d}.png" for image in range(5)]
    assert {picture.shape for picture in found.values()} == {(16, 16, 3)}
    assert len(list((out / "coding_maps").iterdir())) == 5
    manifest = CodeManifest.read(out / "codes")
    samples = [sample for shard in manifest.shards for sample in manifest.read_samples(out / "codes", shard)]
    assert [sample.label for sample in samples] == [1, 0, 1, 0, 1]
    assert manifest.settings.tokenizer == fingerprint(project / "tokenizer")
    assert "5 pictures of" in capsys.readouterr().out
    # the codes are those of the pictures
    decode = ["detokenize", str(out / "codes"), "--tokenizer", str(project / "tokenizer"), "--device=cpu"]
    assert main([*decode, "--out", str(tmp_path / "again")]) == 0
    for name, picture in found.items():
        assert np.abs(np.asarray(Image.open(tmp_path / "again" / name)).astype(int) - picture).max() <= 1
    # and given again, nothing is left to do
    before = contents(out)
    assert main(command) == 0
    assert contents(out) == before


def test_help_shows_the_options_of_the_prior_at_hand(prior: str, tmp_path: Path, capsys, line) -> None:
    raster = tmp_path / "raster"
    write_prior(raster, {**PRIOR, "class_path": "raster-scan"}, "0" * 64)
    shown = {}
    for place in (prior, raster, "elsewhere"):
        assert main(["sample", "--prior", str(place), "--help"]) == 0
        shown[place] = capsys.readouterr().out
    assert "--positions" in shown[prior] and "--positions" in shown["elsewhere"]
    assert "--top-k" in shown[raster] and "--positions" not in shown[raster]
    assert "Draw among the k most likely contents" in shown[prior]
    assert main(["sample", "--prior", str(raster), "--out", str(tmp_path / "out"), "--positions", "implied"]) == 1
    assert "positions is implied, but this prior has no such option: leave it out; those that it has are" in line()


def test_a_seed_gives_the_same_pictures_in_batches_and_shards_of_any_size(prior: str, tmp_path: Path) -> None:
    def draw(name: str, *options: str) -> dict[str, np.ndarray]:
        common = ["sample", "--prior", prior, "--count=7", "--out", str(tmp_path / name), "--device=cpu"]
        assert main([*common, "--coding-maps=false", *options]) == 0
        assert not (tmp_path / name / "coding_maps").exists()
        return pixels(tmp_path / name)

    whole = draw("whole", "--seed=3", "--batch-size=7")
    parts = draw("parts", "--seed=3", "--batch-size=2", "--shard-size=3")
    other = draw("other", "--seed=4", "--batch-size=7")
    for name, picture in whole.items():
        assert np.abs(parts[name].astype(int) - picture).max() <= 1
    assert any(not np.array_equal(other[name], picture) for name, picture in whole.items())


def test_a_killed_run_goes_on(prior: str, tmp_path: Path) -> None:
    command = ["sample", "--prior", prior, "--count=6", "--shard-size=2", "--device=cpu", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    interrupted = tmp_path / "interrupted"
    with pytest.MonkeyPatch.context() as patch:
        from vltok.sequences.export import CodeExport

        write = CodeExport.write

        def stop_at_the_last(self, shard, *others):
            if shard == 2:
                raise KeyboardInterrupt
            write(self, shard, *others)

        patch.setattr(CodeExport, "write", stop_at_the_last)
        assert main([*command, str(interrupted)]) == 130
    kept = {path: path.stat().st_mtime_ns for path in (interrupted / "codes").glob("*.tar")}
    assert len(kept) == 2
    assert main([*command, str(interrupted)]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert contents(interrupted) == contents(tmp_path / "whole")


def test_lengths_are_controlled(prior: str, tmp_path: Path) -> None:
    common = ["sample", "--prior", prior, "--count=3", "--device=cpu", "--out"]
    for name, option, expected in (
        ("codes", "--codes=10", {10}),
        ("ratios", "--ratios={4: 0.25, 8: 0.75}", {3 + 4}),
        ("most", "--max-codes=4", {4}),
    ):
        assert main([*common, str(tmp_path / name), option]) == 0
        histogram = CodeManifest.read(tmp_path / name / "codes").statistics["length"]["histogram"]
        assert set(map(int, histogram)) == expected


def test_every_way_of_drawing_is_an_option(prior: str, tmp_path: Path) -> None:
    options = ["--temperature=0.9", "--top-k=20", "--top-p=0.9", "--position-temperature=1.1", "--position-top-k=3"]
    options += ["--position-top-p=0.8", "--positions=implied", "--guidance=2.5", "--precision=bfloat16", "--labels=all"]
    common = ["sample", "--prior", prior, "--count=2", "--device=cpu", "--out", str(tmp_path / "out")]
    assert main([*common, *options]) == 0
    assert len(pixels(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count=0"], "--count must be at least 1, not 0"),
        (["--batch-size=0"], "--batch-size must be at least 1, not 0"),
        (["--labels=0,2"], "--labels must be names of classes or numbers from 0 to 1"),
        (["--labels=cats"], "not 'cats'; did you mean 'cat'?"),
        (["--temperature=0"], "temperature must be a positive number"),
        (["--codes=10", "--max-codes=12"], "give one of them"),
        (["--codes=3"], "no image of 4 regions has exactly 3 codes"),
        (["--positions=guessed"], "guessed"),
        (["--device=cuda:99"], "--device 'cuda:99' is not on this machine"),
        (["--prior=nowhere"], "there is no bundle 'nowhere'"),
        (["--tokenizer=nowhere"], "there is no bundle 'nowhere'"),
        (["--tokenizer=other"], "--tokenizer 'other' is another one"),
        (["--prior=other"], "holds a tokenizer, not a prior"),
        (["--out=file"], "--out 'file' is a file"),
    ],
)
def test_what_is_wrong_is_one_line(
    options: list[str], message: str, prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "other", seed=1)
    (tmp_path / "file").write_text("")
    assert main(["sample", "--prior", prior, "--out=out", "--count=2", "--device=cpu", *options]) in (1, 2)
    assert message in line()
    assert not (tmp_path / "out" / "codes" / "codes.json").exists()


def test_a_tokenizer_that_is_gone_is_asked_for(project: Path, prior: str, tmp_path: Path, line) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(prior, alone)
    config = yaml.safe_load((alone / "config.yaml").read_text())
    config["tokenizer"]["places"] = ["../nowhere", "/nowhere"]
    (alone / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["sample", "--prior", str(alone), "--count=1", "--device=cpu", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "is not at '../nowhere' or '/nowhere': say where its bundle is with --tokenizer" in line()
    assert main([*command, "--tokenizer", str(project / "tokenizer")]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.prior.codebook_size=512"], "has codebook_size 512, but the codes in codes/train have 300"),
        (["--model.prior.factors=[8,16]"], "has factors [16, 8], but the codes in codes/train have [8, 4]"),
        (["--model.prior.regions=[4,2]"], "but the codes in codes/train have [2, 2]: leave it out of the recipe"),
        (["--model.prior.classes=10"], "set --model.prior.classes 2"),
        (["--data=photos"], "a prior is trained on codes, which Photos does not give"),
        (["--data.root=nowhere"], "nowhere holds no finished codes"),
        (["--data.validation=nowhere"], "nowhere holds no finished codes"),
    ],
)
def test_codes_that_do_not_fit_the_prior_are_said(
    options: list[str], message: str, project: Path, monkeypatch: pytest.MonkeyPatch, line
) -> None:
    monkeypatch.chdir(project)
    assert main(["fit", "--config", "prior.yaml", "--out", "other", *options]) == 1
    assert message in line()
    assert not (project / "other").exists()


def test_a_prior_without_held_out_codes_and_without_its_tokenizer(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    shutil.copytree(project / "codes", tmp_path / "codes")
    path = tmp_path / "codes" / "train" / "codes.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "tokenizer_places": ["../nowhere"]}))
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(project / "prior.yaml"), "--data.validation=null", "--out=run"]) == 0
    assert "give its bundle to 'vltok sample' with --tokenizer" in capsys.readouterr().out
    assert not (tmp_path / "run" / "samples.png").exists()
    assert "unigram_per_code" not in json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert vltok.load_prior(tmp_path / "run" / "bundle").spec.codebook_size == 300


def test_a_prior_goes_on_where_it_was(project: Path, tmp_path: Path) -> None:
    run = shutil.copytree(project / "runs" / "prior", tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        assert main(["fit", "--resume", "--out", str(run), "--trainer.max_steps", "6"]) == 0
    assert json.loads((run / "metrics.json").read_text())["protocol"]["steps"] == 6
