"""Bundles as models of diffusers, by the real package."""

import json
import re
from pathlib import Path

import pytest
import torch

import vltok
from tests.cli.exports import write_bundle
from tests.cli.runs import one_line
from tests.io.importers.foreign import vq_model
from vltok.cli.main import main


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "block_out_channels": (32, 32, 64),
            "down_block_types": ("AttnDownEncoderBlock2D",) + ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2 + ("AttnUpDecoderBlock2D",),
            "layers_per_block": 2,
        },
        {"mid_block_add_attention": False, "norm_num_groups": 8},
    ],
)
def test_diffusers_loads_it_with_equal_codes_and_pictures(tmp_path: Path, changes: dict) -> None:
    from diffusers import VQModel

    vq_model(**changes).save_pretrained(tmp_path / "first")
    vltok.import_model(tmp_path / "first", tmp_path / "bundle")
    assert main(["export", str(tmp_path / "bundle"), str(tmp_path / "out"), "--to", "diffusers"]) == 0
    model, tokenizer = VQModel.from_pretrained(tmp_path / "out").eval(), vltok.load_tokenizer(tmp_path / "bundle")
    first = VQModel.from_pretrained(tmp_path / "first").state_dict()
    assert first.keys() == model.state_dict().keys()
    assert all(first[name].equal(value) for name, value in model.state_dict().items())
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        latents = model.encode(images).latents
        _, _, (_, _, ids) = model.quantize(latents)
        pictures = model.decode(latents).sample
    codes = tokenizer.encode(images)
    assert codes.to_code_map(tokenizer.spec).flatten().equal(ids)
    torch.testing.assert_close(tokenizer.decode(codes), pictures, rtol=0, atol=1e-5 * pictures.abs().max().item())


def test_a_bundle_that_leaves_out_newer_arguments_is_exported(tmp_path: Path) -> None:
    vq_model().save_pretrained(tmp_path / "first")
    vltok.import_model(tmp_path / "first", tmp_path / "bundle")
    config = tmp_path / "bundle" / "config.yaml"
    config.write_text(re.sub(r"\n *dropout: 0\.0", "", config.read_text()))
    assert "dropout" not in config.read_text()
    vltok.export(tmp_path / "bundle", tmp_path / "out")
    first, out = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "out"))
    assert out["block_out_channels"] == first["block_out_channels"]


def test_what_diffusers_cannot_say_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_bundle(tmp_path / "bundle")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    for bundle, out, to, message in [
        ("bundle", "out", "diffusers", "no counterpart of this tokenizer: encoder is patch, and must be vqgan"),
        ("bundle", "taken", "diffusers", "is there already, and is left as it is"),
        ("bundle", "out", "difusers", "did you mean 'diffusers'?"),
        ("nowhere", "out", "diffusers", "there is no bundle"),
    ]:
        assert main(["export", str(tmp_path / bundle), str(tmp_path / out), "--to", to]) == 1
        assert message in one_line(capsys) and not (tmp_path / "out").exists()
