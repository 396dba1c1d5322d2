"""Codes of two ids, from pictures to samples: from the command line, and from Python."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import vltok
from vltok.cli.main import main

from .cli.runs import RECIPE

STAGE = "{class_path: ema-vq, init_args: {size: 16, dimension: 4}}"
RESIDUAL = f"{{class_path: residual, init_args: {{codebooks: 2, quantizer: {STAGE}}}}}"
PICTURES = ["--data=photos", "--data.size=16", "--data.batch_size=4", "--data.train_crops=16", "--data.val_crops=4"]
PRIOR = """
seed_everything: 0
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: raster-scan
      init_args:
        position_transformer: {width: 16, heads: 2, layers: 1}
        content_transformer: {layers: 1}
data: {class_path: codes, init_args: {root: codes, validation: codes, batch_size: 4, workers: 0}}
trainer: {accelerator: cpu, max_steps: 2}
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundle of a tokenizer; its codes and a recipe of a prior are in the folder at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        Path("tokenizer.yaml").write_text(RECIPE)
        Path("prior.yaml").write_text(PRIOR)
        trained = ["fit", "--config=tokenizer.yaml", "--out=tokenizer", f"--model.tokenizer.quantizer={RESIDUAL}"]
        assert main(trained) == 0
        assert main(["tokenize", "--tokenizer=tokenizer/bundle", "--split=train", "--out=codes", *PICTURES]) == 0
        yield Path("tokenizer/bundle")


def test_they_are_learned_drawn_and_measured(tokenizer: Path, capsys: pytest.CaptureFixture) -> None:
    assert json.loads(Path("codes/codes.json").read_text())["spec"]["codebooks"] == 2
    assert main(["fit", "--config=prior.yaml", "--out=prior"]) == 0
    assert main(["sample", "--prior=prior/bundle", "--count=2", "--out=drawn"]) == 0
    assert Path("drawn/grid.png").is_file()
    assert main(["evaluate", "--prior=prior/bundle", "--count=2", "--out=measured", *PICTURES]) == 0
    assert json.loads(Path("measured/metrics.json").read_text())["values"]["bits_per_image"]["value"] > 0
    assert main(["evaluate", f"--tokenizer={tokenizer}", "--perturb-codes", "--out=none", *PICTURES]) == 1
    assert "--perturb-codes replaces codes by near ones of one codebook, but these have 2" in capsys.readouterr().err

    run = vltok.fit(yaml.safe_load(PRIOR), out="again", overrides={"model.prior.class_path": "dq-transformer"})
    prior = vltok.load_prior(run.bundle)
    codes = prior.sample(3, vltok.SamplingConfig(top_k=5)).validate(prior.spec)
    assert prior.spec.codebooks == 2 and codes.ids.shape == (int(codes.lengths.sum()), 2)
    assert vltok.load_tokenizer(tokenizer).decode(codes).shape == (3, 3, 16, 16)


def test_they_are_compressed_under_tables_and_under_a_prior(tokenizer: Path) -> None:
    run = vltok.fit(yaml.safe_load(PRIOR), out="prior_of_files")
    noise = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save("picture.png")
    model = vltok.load_tokenizer(tokenizer)
    codes = model.encode(torch.from_numpy(noise).movedim(2, 0)[None])
    for name, prior in (("tables", None), ("prior", run.bundle)):
        vltok.compress(tokenizer, "picture.png", name, prior=prior)
        vltok.decompress(tokenizer, f"{name}/picture.vlt", name, prior=prior)
        decoded = np.asarray(Image.open(f"{name}/picture.png"))
        expected = ((model.decode(codes)[0].clamp(-1, 1) + 1) * 127.5).round().movedim(0, 2)
        assert np.abs(decoded - expected.numpy()).max() <= 1
