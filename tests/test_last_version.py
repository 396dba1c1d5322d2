"""What the version before left on disk is read, gone on from and trained on: see `last_version/README.md`."""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vltok
from vltok.cli.main import main
from vltok.io.bundles import class_names
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.shards import CodeSample, codes_of

KEPT = Path(__file__).parent / "last_version"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, to change, in which the recipes' relative paths hold."""
    folder = shutil.copytree(KEPT, tmp_path / "project")
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    monkeypatch.chdir(folder)
    return folder


def samples(name: str) -> list[CodeSample]:
    """The samples of one of the exports."""
    folder = KEPT / "codes" / name
    manifest = CodeManifest.read(folder)
    return [sample for shard in manifest.shards for sample in manifest.read_samples(folder, shard)]


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_shards_hold_what_the_tokenizer_gives(form: str) -> None:
    found = samples(form)
    images = [np.asarray(Image.open(KEPT / "pictures" / sample.key)) for sample in found]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
    tokenizer = vltok.load_tokenizer(KEPT / "tokenizer" / "bundle").eval()
    codes = codes_of(found)
    assert tokenizer.encode(batch).equal(vltok.Codes(codes.ids.long(), codes.lengths, codes.grains.long()))
    assert tokenizer.decode(codes).shape == batch.shape


def test_the_prior_finds_its_codes_as_likely_as_then() -> None:
    prior = vltok.load_prior(KEPT / "prior" / "bundle").eval()
    loss = prior.loss(codes_of(samples("webdataset"), labelled=True))
    metrics = json.loads((KEPT / "prior" / "metrics.json").read_text())
    assert {name: float(value) for name, value in loss.parts.items()} == pytest.approx(
        {name: metrics[name] for name in ("position", "content")}, rel=1e-4
    )
    drawn = prior.sample(torch.tensor([0, 1]), vltok.SamplingConfig())
    assert len(drawn.validate(prior.spec)) == 2


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_an_export_is_known_to_be_finished(project: Path, form: str, capsys: pytest.CaptureFixture) -> None:
    data = ["--data", "folder", "--data.root", "pictures", "--data.size", "16", "--shard-size", "3"]
    out = ["--format", form, "--out", f"codes/{form}"]
    assert main(["tokenize", "--tokenizer", "tokenizer/bundle", *data, *out]) == 0
    assert "nothing is left to do" in capsys.readouterr().out


@pytest.mark.parametrize("run", ["tokenizer", "prior"])
def test_a_run_is_trained_further(project: Path, run: str) -> None:
    assert main(["fit", "--resume", "--out", run, "--trainer.max_steps", "5"]) == 0
    checkpoint = torch.load(project / run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 5
    if run == "prior":
        assert class_names(KEPT / run / "bundle") is None
        assert class_names(project / run / "bundle") == ("cat", "person")
