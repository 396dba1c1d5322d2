"""The recipe trains as it stands, and what it trains is loaded again."""

from pathlib import Path

import torch

import vltok
from vltok.cli.main import main

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart_vector_quantize.yaml"
SMALLER = ["--trainer.max_steps=2", "--data.batch_size=2", "--data.train_crops=4", "--data.val_crops=2"]


def test_the_recipe_trains(tmp_path):
    assert main(["fit", "--config", str(RECIPE), "--out", str(tmp_path), *SMALLER]) == 0
    tokenizer = vltok.load_tokenizer(tmp_path / "bundle")
    assert tokenizer.spec.codebook_size == 512 and tokenizer.spec.codebooks == 2
    assert tokenizer.decode(tokenizer.encode(torch.zeros(1, 3, 64, 64))).shape == (1, 3, 64, 64)
    assert "vltok-vector-quantize" in (tmp_path / "bundle" / "config.yaml").read_text()
