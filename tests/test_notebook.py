"""The quickstart's way as a notebook goes it, by functions alone, at a tiny size."""

from pathlib import Path

import pytest
import torch
import yaml

import vltok
from tests.cli.runs import RECIPE
from vltok.pictures.photos import Photos

PRIOR = {
    "seed_everything": 3,
    "model": {
        "class_path": "vltok.training.PriorTraining",
        "init_args": {
            "prior": {
                "class_path": "dq-transformer",
                "init_args": {
                    **{"codebook_size": 16, "factors": [4, 8], "regions": [2, 2], "width": 16, "heads": 2},
                    **{"position_layers": 1, "content_layers": 1},
                },
            }
        },
    },
    "data": {"class_path": "codes", "init_args": {"root": "codes", "batch_size": 4, "workers": 0}},
    "trainer": {"accelerator": "cpu", "max_steps": 2, "num_sanity_val_steps": 0},
}


def test_from_photographs_to_drawn_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    run = vltok.fit(yaml.safe_load(RECIPE), out="runs/tokenizer")
    tokenizer = vltok.load_tokenizer(run.bundle)

    photographs = {"class_path": "photos", "init_args": {"size": 16, "val_crops": 6, "batch_size": 4}}
    exported = vltok.tokenize(run.bundle, photographs, "codes", split="val")
    assert exported.manifest.statistics["samples"] == 6
    decoded = vltok.detokenize("codes", "pictures", tokenizer=tokenizer)
    assert decoded.pictures == len(list(Path("pictures").rglob("*.png"))) == 6

    found = vltok.reconstruct(tokenizer, "pictures")
    assert [each.pixels.shape for each in found.pictures] == [(16, 16, 3)] * 6
    assert found.record.figure("psnr") > 0

    prior = vltok.fit(PRIOR, out="runs/prior")
    drawn = vltok.sample(prior.bundle, 3, seed=1)
    assert torch.equal(
        drawn.pictures, vltok.sample(vltok.load_prior(prior.bundle), 3, tokenizer=tokenizer, seed=1).pictures
    )
    data = Photos(size=16, val_crops=6, batch_size=6)
    measured = vltok.evaluate(tokenizer, data, device="cpu", examples=1)
    same = vltok.reconstruct(tokenizer, next(iter(data.val_dataloader())).images)
    assert measured.record.figure("psnr") == pytest.approx(same.record.figure("psnr"), abs=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "codes", "pictures"}
    assert capsys.readouterr().out == ""
