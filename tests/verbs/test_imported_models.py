"""A checkpoint of every format goes through every command that takes a bundle, on photographs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

import vltok
from tests.cli.exports import write_pictures
from tests.cli.runs import RECIPE
from tests.io.importers.foreign import llamagen_gpt_state, llamagen_state, minigpt, stack_gpt, vq_model, vqgan_state
from vltok.cli.main import main

Parity = Callable[[str], tuple[dict[str, Tensor], dict]]
_TABLE = "scripts/tools/thresholds/entropy_thresholds_imagenet_train_patch-16.json"
_VQGAN = {"ddconfig": {"resolution": 16, "ch_mult": [1, 2]}, "n_embed": 40, "embed_dim": 8}
_PRIOR_RECIPE = """\
model:
  class_path: vltok.training.PriorTraining
  init_args: {prior: {class_path: fixed-raster}}
data: {class_path: codes, init_args: {workers: 0, token_budget: 512}}
trainer: {accelerator: cpu, max_steps: 2}
"""


def own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[3:]: value for name, value in tensors.items() if name.startswith("sd.")}


def written(folder: Path, state: dict[str, Tensor], config: dict | None = None) -> Path:
    torch.save({"state_dict": state, "epoch": 3}, folder / "last.ckpt")
    if config is not None:
        (folder / "last.yaml").write_text(yaml.safe_dump(config))
    return folder / "last.ckpt"


def dq_vae(name: str) -> Callable[[Path, Parity], Path]:
    def write(folder: Path, parity: Parity) -> Path:
        tensors, config = parity(name)
        if "in.threshold" in tensors:
            config["kwargs"]["encoderconfig"]["params"]["router_config"]["params"]["json_path"] = _TABLE
            (folder / _TABLE).parent.mkdir(parents=True)
            (folder / _TABLE).write_text(json.dumps({"50": tensors["in.threshold"].item()}))
        return written(folder, own(tensors), {"model": {"params": config["kwargs"]}})

    return write


def vqgan(folder: Path, parity: Parity) -> Path:
    return written(folder, {**vqgan_state(), "loss.discriminator.main.0.weight": torch.ones(2)})


def gumbel(folder: Path, parity: Parity) -> Path:
    state = vqgan_state()
    state["quantize.embed.weight"] = state.pop("quantize.embedding.weight")
    state |= {"quantize.proj.weight": torch.randn(40, 8, 1, 1), "quantize.proj.bias": torch.randn(40)}
    return written(folder, state)


def latent_diffusion(folder: Path, parity: Parity) -> Path:
    state = vqgan_state()
    averages = {f"model_ema.{name.replace('.', '')}": 0.9 * value for name, value in state.items()}
    return written(folder, {**state, **averages, "model_ema.decay": torch.tensor(0.9)})


def diffusers(folder: Path, parity: Parity) -> Path:
    vq_model().save_pretrained(folder / "vq")
    return folder / "vq"


def llamagen(folder: Path, parity: Parity) -> Path:
    torch.save({"model": llamagen_state(), "optimizer": {"state": {}}}, folder / "vq.pt")
    return folder / "vq.pt"


def net2net(classes: int | None) -> Callable[[Path, Parity], Path]:
    def write(folder: Path, parity: Parity) -> Path:
        config, state = minigpt(vqgan_state(), _VQGAN, classes=classes, steps=64)
        return written(folder, state, config)

    return write


def dq_transformer(name: str) -> Callable[[Path, Parity], Path]:
    def write(folder: Path, parity: Parity) -> Path:
        config, state = stack_gpt(*parity(name), *parity("e2e_dual_feat"))
        return written(folder, state, config)

    return write


def llamagen_gpt(folder: Path, parity: Parity) -> Path:
    torch.save({"model": llamagen_gpt_state(), "steps": 3}, folder / "c2i.pt")
    (folder / "c2i.json").write_text(json.dumps({"n_head": 4, "block_size": 64, "downsample_size": 2}))
    return folder / "c2i.pt"


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


@pytest.mark.parametrize(
    ("write", "format", "size", "exported"),
    [
        pytest.param(dq_vae("e2e_dual_feat"), "dynamic-vector-quantization", 32, False, id="dual"),
        pytest.param(dq_vae("e2e_triple_feat"), "dynamic-vector-quantization", 32, False, id="triple"),
        pytest.param(dq_vae("e2e_dual_entropy"), "dynamic-vector-quantization", 64, False, id="entropy"),
        pytest.param(vqgan, "taming-transformers", 16, True, id="vqgan"),
        pytest.param(gumbel, "taming-transformers", 16, False, id="gumbel"),
        pytest.param(diffusers, "diffusers", 16, True, id="diffusers"),
        pytest.param(llamagen, "llamagen", 16, False, id="llamagen"),
    ],
)
def test_a_tokenizer_goes_through_every_command(write, format, size, exported, parity, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures", 2)
    run("import", write(tmp_path, parity), "--out", "bundle")
    assert f"tokenizer of format {format}" in capsys.readouterr().out
    run("info", "bundle", "--json")
    assert json.loads(capsys.readouterr().out)["provenance"]["format"] == format
    data = ("--data", "folder", "--data.root", "pictures", "--data.size", size)
    run("reconstruct", "pictures", "--tokenizer", "bundle", "--out", "seen", "--device", "cpu")
    run("tokenize", "--tokenizer", "bundle", *data, "--out", "codes", "--device", "cpu")
    run("detokenize", "codes", "--tokenizer", "bundle", "--out", "decoded", "--device", "cpu")
    run("evaluate", "--tokenizer", "bundle", *data, "--split", "all", "--out", "measured", "--device", "cpu")
    assert len(list((tmp_path / "decoded").rglob("*.png"))) == 2
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    few = [f"--data.{name}={value}" for name, value in (("size", size), ("train_crops", 4), ("val_crops", 2))]
    few += ["--data.batch_size=2", "--model.calibration_batches=1"]
    run("fit", "--config", "recipe.yaml", "--start", "bundle", "--out", "tuned", *few)
    first, tuned = (vltok.load_tokenizer(path) for path in ("bundle", "tuned/bundle"))
    assert first.config == tuned.config and vltok.fingerprint("bundle") != vltok.fingerprint("tuned/bundle")
    assert main(["export", "tuned/bundle", "exported", "--to", "diffusers"]) == int(not exported)


def test_averages_of_latent_diffusion_are_a_vqgan(parity, tmp_path) -> None:
    bundles = [
        vltok.import_model(write(tmp_path, parity), tmp_path / write.__name__) for write in (vqgan, latent_diffusion)
    ]
    plain, averaged = (vltok.load_tokenizer(found.bundle) for found in bundles)
    assert [found.averaged for found in bundles] == [False, True] and plain.config == averaged.config
    torch.testing.assert_close(averaged.quantizer.codebook, 0.9 * plain.quantizer.codebook)


@pytest.mark.parametrize(
    ("write", "format", "size", "classes"),
    [
        pytest.param(net2net(None), "net2net", 16, None, id="gpt"),
        pytest.param(net2net(2), "net2net", 16, 2, id="gpt-of-classes"),
        pytest.param(llamagen_gpt, "llamagen-gpt", 16, 3, id="llamagen-gpt"),
        pytest.param(dq_transformer("stackgpt_uncond"), "stack-gpt", 16, None, id="stack-gpt"),
        pytest.param(dq_transformer("stackgpt_class"), "stack-gpt", 16, 5, id="stack-gpt-of-classes"),
    ],
)
def test_a_prior_goes_through_every_command(write, format, size, classes, parity, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for label in range(classes or 1):
        write_pictures(tmp_path / "pictures" / str(label), 1)
    options = ()
    if format == "llamagen-gpt":  # which carries no tokenizer along
        run("import", llamagen(tmp_path, parity), "--out", "prior-tokenizer")
        options = ("--tokenizer", "prior-tokenizer")
    run("import", write(tmp_path, parity), "--out", "prior", *options)
    assert f"prior of format {format}" in capsys.readouterr().out
    run("info", "prior")
    assert "its tokenizer" not in capsys.readouterr().out
    data = ("--data", "folder", "--data.root", "pictures", "--data.size", size)
    run("tokenize", "--tokenizer", "prior-tokenizer", *data, "--out", "codes", "--device", "cpu")
    labels = () if classes is None else ("--labels", 1)
    run("sample", "--prior", "prior", "--count", 2, *labels, "--out", "drawn", "--device", "cpu")
    assert len(list((tmp_path / "drawn" / "pictures").glob("*.png"))) == 2
    (tmp_path / "recipe.yaml").write_text(_PRIOR_RECIPE)
    run("fit", "--config", "recipe.yaml", "--start", "prior", "--data.root", "codes", "--out", "tuned")
    first, tuned = (vltok.load_prior(path) for path in ("prior", "tuned/bundle"))
    assert first.config == tuned.config
    changed = [name for name, value in first.state_dict().items() if not value.equal(tuned.state_dict()[name])]
    assert changed and vltok.find_tokenizer("tuned/bundle").endswith("prior-tokenizer")
