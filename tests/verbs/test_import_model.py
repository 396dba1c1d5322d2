"""Checkpoints as their projects write them become bundles that the verbs take."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vltok
from tests.io.importers.foreign import llamagen_state, minigpt, vq_model, vqgan_state
from vltok.cli.main import main
from vltok.errors import UserError
from vltok.io.hub import Hub
from vltok.verbs.import_model import _files


def test_a_folder_of_diffusers_becomes_a_tokenizer(tmp_path) -> None:
    vq_model().save_pretrained(tmp_path / "model")
    found = vltok.import_model(tmp_path / "model", tmp_path / "bundle")
    assert (found.kind, found.format, found.averaged, found.left_out) == ("tokenizer", "diffusers", False, ())
    tokenizer = vltok.load_tokenizer(found.bundle)
    assert sum(value.numel() for value in tokenizer.parameters()) == found.parameters
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    assert tokenizer.decode(tokenizer.encode(images)).shape == images.shape
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "format `diffusers`" in card and "A fixed-length image" in card and "variable-length" not in card


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
        (lambda state: state.pop("encoder.norm_out.weight"), r"1 tensors are missing: encoder\.norm_out\.weight"),
        (lambda state: state.update({"strange.weight": torch.ones(1)}), r"1 tensors .* such as strange\.weight"),
        (
            lambda state: state.update({"quant_conv.bias": torch.ones(3)}),
            r"1 tensors have another shape: quant_conv\.bias \[3\] instead of \[8\]",
        ),
        (lambda state: state.pop("quantize.embedding.weight"), "none of the formats .*autoencoders of diffusion"),
        (dict.clear, "holds no tensors"),
        (lambda state: state.update({"quant_conv.bias": torch.ones(8).long()}), "1 tensors hold whole numbers"),
        (lambda state: state.update({"quant_conv.bias": torch.ones(8, device="meta")}), "tensors without values"),
        (lambda state: state.update({"quant_conv.bias": torch.ones(8).to_sparse()}), "or sparse ones, such as quant"),
    ],
)
def test_what_is_wrong_with_the_tensors_is_told_and_nothing_is_written(tmp_path, change, message) -> None:
    state = llamagen_state()
    change(state)
    torch.save(state, tmp_path / "vq.pt")
    with pytest.raises(UserError, match=message):
        vltok.import_model(tmp_path / "vq.pt", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("prefix", ["model.", "module.vae.", "first_stage_model."])
def test_a_model_may_be_a_part_of_what_a_checkpoint_holds(tmp_path, prefix) -> None:
    state = {f"{prefix}{name}": value for name, value in llamagen_state().items()}
    torch.save({"state_dict": {**state, "unet.weight": torch.ones(2)}}, tmp_path / "whole.ckpt")
    found = vltok.import_model(tmp_path / "whole.ckpt", tmp_path / "bundle")
    assert found.left_out == ("unet.weight",) and f"the model is what stands below '{prefix}'" in found.assumed
    assert vltok.load_tokenizer(tmp_path / "bundle").quantizer.codebook.equal(
        state[f"{prefix}quantize.embedding.weight"]
    )
    twice = {f"{each}.{name}": value for each in "ab" for name, value in llamagen_state().items()}
    torch.save(twice, tmp_path / "twice.ckpt")
    with pytest.raises(UserError, match=r"several models, llamagen below 'a\.' and llamagen below 'b\.'"):
        vltok.import_model(tmp_path / "twice.ckpt", tmp_path / "other")


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
    (tmp_path / "hostile.yaml").write_text("model: !!python/object/apply:os.system ['true']")
    given = ["--config", str(tmp_path / "hostile.yaml")]
    assert main(["import", str(tmp_path / "whole.pt"), "--out", str(tmp_path / "out"), *given]) == 1
    assert "hostile.yaml' is not YAML: line 1, column 8" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "whole.pt"), "--out", str(tmp_path / "out"), "--from", "lamagen"]) == 1
    assert "did you mean 'llamagen'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "checkpoint", "config"),
    [
        (["a.pt", "a.yaml", "other.yaml"], "a.pt", "a.yaml"),
        (["a.pt", "config.json", "a.json"], "a.pt", "a.json"),
        (["a.pt", "config.json", "other.yaml"], "a.pt", "config.json"),
        (
            ["checkpoints/last.ckpt", "configs/1-project.yaml", "configs/1-lightning.yaml"],
            "last.ckpt",
            "1-project.yaml",
        ),
        (["a.pt", "b.yaml", "c.yaml"], "a.pt", None),
        (["model.bin", "model.safetensors"], "model.safetensors", None),
        (["m-00001-of-00002.bin", "m-00002-of-00002.bin", "m.bin.index.json"], "m.bin.index.json", None),
    ],
)
def test_what_is_meant_in_a_folder(tmp_path, files, checkpoint, config) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, beside = _files(tmp_path, Hub())
    assert found.name == checkpoint and (beside and beside.name) == config


def test_a_misspelt_path_is_not_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/link.pt").symlink_to("nowhere.pt")
    monkeypatch.delattr(Hub, "fetch")
    for name in ("weights/vq.pt", "weights/link.pt", "weights/vq"):
        with pytest.raises(UserError, match=f"there is no checkpoint '{name}': no file and no folder"):
            vltok.import_model(name, tmp_path / "bundle")
    with pytest.raises(UserError, match="a path is empty"):
        vltok.import_model("", tmp_path / "bundle")


def test_one_file_of_a_repository_is_fetched_alone(tmp_path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(Hub, "fetch", lambda _, name, files: asked.append((name, files)) or tmp_path)
    torch.save({"model": llamagen_state()}, tmp_path / "vq.pt")
    vltok.import_model("user/models@main/vq.pt", tmp_path / "bundle")
    name, files = asked[0]
    assert name == "user/models@main" and "vq.pt" in files and "*.pt" not in files
    with pytest.raises(UserError, match=r"repository 'user/models' has no file 'deep/none\.pt'"):
        vltok.import_model("user/models/deep/none.pt", tmp_path / "other")


def test_a_missing_file_of_a_folder_that_is_here_is_not_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = []

    def fetch(hub: Hub, name: str, files: list[str]) -> None:
        asked.append(name)
        raise UserError("the Hub has none")

    monkeypatch.setattr(Hub, "fetch", fetch)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"there is no checkpoint 'checkpoints/vq/last\.ckpt': no file and no folder"):
        vltok.import_model("checkpoints/vq/last.ckpt", tmp_path / "bundle")
    assert not asked
    with pytest.raises(UserError, match=r"no checkpoint 'user/vq/last\.ckpt' here; as a repository: the Hub has none"):
        vltok.import_model("user/vq/last.ckpt", tmp_path / "bundle")
    assert asked == ["user/vq"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_become_float32(tmp_path, dtype) -> None:
    state = {name: value.to(dtype) for name, value in llamagen_state().items()}
    save_file(state, tmp_path / "vq.safetensors")
    vltok.import_model(tmp_path / "vq.safetensors", tmp_path / "bundle")
    codebook = vltok.load_tokenizer(tmp_path / "bundle").quantizer.codebook
    assert codebook.dtype == torch.float32 and codebook.equal(state["quantize.embedding.weight"].float())


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "quantize.embedding.weight", "quant_conv.weight"])
@pytest.mark.parametrize("value", [torch.ones(()), torch.ones(3), torch.ones(2, 0, 3, 3)])
def test_tensors_of_any_shape_are_one_line(tmp_path, capsys, name, value) -> None:
    torch.save(llamagen_state() | {name: value}, tmp_path / "vq.pt")
    assert main(["import", str(tmp_path / "vq.pt"), "--out", str(tmp_path / "bundle")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "unexpected" not in error and not (tmp_path / "bundle").exists()


def test_a_tokenizer_of_other_codes_is_not_taken_for_a_priors(tmp_path) -> None:
    torch.save(llamagen_state(), tmp_path / "vq.pt")
    vltok.import_model(tmp_path / "vq.pt", tmp_path / "vq")
    vqgan = {"ddconfig": {"resolution": 16, "ch_mult": [1, 2]}, "n_embed": 30, "embed_dim": 8}
    config, state = minigpt(vqgan_state() | {"quantize.embedding.weight": torch.rand(30, 8)}, vqgan, None)
    torch.save(state, tmp_path / "gpt.ckpt")
    (tmp_path / "gpt.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"has 40 codes of factors \[2\], and the prior models 30"):
        vltok.import_model(tmp_path / "gpt.ckpt", tmp_path / "gpt", tokenizer=tmp_path / "vq")
