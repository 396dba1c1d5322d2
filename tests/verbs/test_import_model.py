"""Checkpoints as their projects write them become bundles that the verbs take."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vltok
from tests.io.importers.foreign import llamagen_state, minigpt, vq_model
from vltok.cli.main import main
from vltok.errors import UserError


def test_a_folder_of_diffusers_becomes_a_tokenizer(tmp_path) -> None:
    vq_model().save_pretrained(tmp_path / "model")
    found = vltok.import_model(tmp_path / "model", tmp_path / "bundle")
    assert (found.kind, found.format, found.averaged, found.left_out) == ("tokenizer", "diffusers", False, ())
    tokenizer = vltok.load_tokenizer(found.bundle)
    assert sum(value.numel() for value in tokenizer.parameters()) == found.parameters
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    assert tokenizer.decode(tokenizer.encode(images)).shape == images.shape
    assert "format `diffusers`" in (tmp_path / "bundle" / "README.md").read_text()


def test_a_prior_brings_its_tokenizer(parity, tmp_path, capsys) -> None:
    tensors, config = parity("vqgan")
    first_stage = {key[3:]: value for key, value in tensors.items() if key.startswith("sd.")}
    config, state = minigpt(first_stage, config, classes=5)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    (tmp_path / "last.json").write_text(json.dumps(config))
    assert main(["import", str(tmp_path / "last.ckpt"), "--out", str(tmp_path / "gpt")]) == 0
    said = capsys.readouterr().out
    assert "prior of format net2net with " in said and f"its tokenizer is {tmp_path / 'gpt-tokenizer'}" in said
    assert vltok.find_tokenizer(tmp_path / "gpt") == str(tmp_path / "gpt-tokenizer")
    drawn = vltok.sample(tmp_path / "gpt", 1, labels=[2])
    assert drawn.codes.lengths.tolist() == [16 * 16]


def test_the_command_tells_what_it_took(tmp_path, capsys) -> None:
    state = llamagen_state()
    averages = {name: value + 1 for name, value in state.items()}
    torch.save({"model": {**state, "quantize.codebook_used": torch.zeros(8)}, "ema": averages}, tmp_path / "vq.pt")
    assert main(["import", str(tmp_path / "vq.pt"), "--out", str(tmp_path / "ema")]) == 0
    said = capsys.readouterr().out
    assert "assumed: codebook_l2_norm is true" in said and "averages (EMA) of the weights written to" in said
    assert main(["import", str(tmp_path / "vq.pt"), "--out", str(tmp_path / "raw"), "--averages", "false"]) == 0
    assert (
        "1 tensors of the checkpoint have no place in the model, such as quantize.codebook_used"
        in capsys.readouterr().out
    )
    ema, raw = (vltok.load_tokenizer(tmp_path / name).quantizer.codebook for name in ("ema", "raw"))
    torch.testing.assert_close(ema, raw + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("encoder.norm_out.weight"), r"1 are missing: encoder\.norm_out\.weight"),
        (lambda state: state.update({"strange.weight": torch.ones(1)}), r"1 tensors .* such as strange\.weight"),
        (
            lambda state: state.update({"quant_conv.bias": torch.ones(3)}),
            r"1 have another shape: quant_conv\.bias \[3\] instead of \[8\]",
        ),
        (lambda state: state.pop("quantize.embedding.weight"), "none of the formats .*autoencoders of diffusion"),
        (dict.clear, "holds no tensors"),
    ],
)
def test_what_is_wrong_with_the_tensors_is_told_and_nothing_is_written(tmp_path, change, message) -> None:
    state = llamagen_state()
    change(state)
    torch.save(state, tmp_path / "vq.pt")
    with pytest.raises(UserError, match=message):
        vltok.import_model(tmp_path / "vq.pt", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_damaged_and_foreign_sources_are_refused_in_one_line(tmp_path, capsys) -> None:
    torch.save(llamagen_state(), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:1000])
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    (tmp_path / "hostile.ckpt").write_bytes(pickle.dumps(Path(tmp_path)))
    (tmp_path / "picture.pt").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "cut.pt": "is damaged",
        "other.safetensors": "is of none of the formats",
        "hostile.ckpt": "hostile.ckpt'",
        "picture.pt": "is no checkpoint",
        "empty": "holds no checkpoint",
        "none.ckpt": "no file and no folder",
        ".": "name one of them",
    }.items():
        assert main(["import", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and "unexpected" not in error
    assert main(["import", str(tmp_path / "whole.pt"), "--out", str(tmp_path / "out"), "--from", "lamagen"]) == 1
    assert "did you mean 'llamagen'?" in capsys.readouterr().err
