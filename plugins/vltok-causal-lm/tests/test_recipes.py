"""The recipes train, and what they leave is loaded, drawn from and evaluated, all by vltok's own commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM

import vltok
from vltok.cli.main import main
from vltok.codes import CodeSpec
from vltok.sequences.stored import stored_sequences
from vltok_causal_lm import CausalLM
from vltok_causal_lm.__main__ import main as captions

RECIPES = Path(__file__).parents[1] / "recipes"
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TOKENIZER = {
    "encoder": {"class_path": "patch", "init_args": {"factors": [4, 8], "width": 8, "blocks": 1, "channels": 8}},
    "gate": {"class_path": "random", "init_args": {"ratios": {4: 0.5, 8: 0.5}}},
    "quantizer": {"class_path": "vq", "init_args": {"size": 512, "dimension": 4}},
    "decoder": {"class_path": "pixel-shuffle", "init_args": {"factor": 4, "channels": 8, "width": 8, "blocks": 1}},
}


PICTURES = ("--data", "photos", "--data.size=64", "--data.val_crops=4", "--data.batch_size=2")


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def prior_of(recipe: Path) -> dict:
    return yaml.safe_load(recipe.read_text(encoding="utf-8"))["model"]["init_args"]["prior"]["init_args"]


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> Path:
    """Folders of code sequences, `train` and `val`, of an untrained tokenizer."""
    folder = tmp_path_factory.mktemp("codes")
    recipe = folder / "tokenizer.yaml"
    training = {"tokenizer": {"class_path": "dq-vae", "init_args": TOKENIZER}, "perceptual": "none"}
    model = {"class_path": "vltok.training.TokenizerTraining", "init_args": training}
    recipe.write_text(yaml.safe_dump({"model": model}), encoding="utf-8")
    data = ("--data.size=64", "--data.train_crops=32", "--data.val_crops=2", "--data.batch_size=2")
    trainer = ("--trainer.max_steps=1", "--trainer.accelerator=cpu")
    run("fit", "--config", recipe, "--out", folder / "run", "--data", "photos", *data, *trainer)
    for split, count in (("train", 32), ("val", 4)):
        crops = f"--data.{split}_crops={count}"
        bundle = ("--tokenizer", folder / "run" / "bundle")
        run("tokenize", *bundle, "--split", split, crops, "--out", folder / split, "--device", "cpu")
    return folder


def fit(recipe: Path, codes: Path, out: Path, *arguments: str) -> Path:
    """Train for two steps; the bundle."""
    data = (f"--data.root={codes / 'train'}", f"--data.validation={codes / 'val'}", "--data.workers=0")
    trainer = ("--trainer.max_steps=2", "--trainer.precision=32-true", "--trainer.accelerator=cpu")
    run("fit", "--config", recipe, "--out", out, *data, *trainer, *arguments)
    return out / "bundle"


def test_recipes_open_with_what_they_are_and_the_command_that_runs_them():
    for recipe in RECIPES.glob("*.yaml"):
        title, command = recipe.read_text(encoding="utf-8").splitlines()[:2]
        assert title.startswith("# ")
        assert command == f"# vltok fit --config plugins/vltok-causal-lm/recipes/{recipe.name}"


def test_the_quickstarts_trains_and_draws(codes, tmp_path):
    smaller = (f"--model.prior.options.{name}={value}" for name, value in SMALL.items())
    bundle = fit(RECIPES / "quickstart_causal_lm.yaml", codes, tmp_path / "run", *smaller)
    assert "vltok-causal-lm" in (bundle / "config.yaml").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["values"]["content_per_code"]["value"] > 0
    run("sample", "--prior", bundle, "--count", 3, "--out", tmp_path / "samples", "--top-k", 9, "--max-codes", 100)
    assert len(list((tmp_path / "samples" / "pictures").glob("*.png"))) == 3
    run("evaluate", "--prior", bundle, "--count", 4, "--out", tmp_path / "evaluation", "--device", "cpu", *PICTURES)


def test_that_of_texts_trains_draws_what_a_text_says_and_writes_captions(codes, tmp_path, capsys):
    for split, texts in (("train", ("grey", "grey, and dark", "")), ("val", ("grey",))):
        pictures = tmp_path / split
        pictures.mkdir()
        for number, text in enumerate(texts):
            Image.new("RGB", (64, 64), (99 + number, 99, 99)).save(pictures / f"{number}.png")
            (pictures / f"{number}.txt").write_text(text)
        data = ("--data=folder", f"--data.root={pictures}", "--data.texts=txt", "--data.size=64")
        tokenizer = ("--tokenizer", codes / "run" / "bundle", "--device", "cpu")
        run("tokenize", *tokenizer, *data, "--out", tmp_path / "codes" / split)
    smaller = (f"--model.prior.options.{name}={value}" for name, value in SMALL.items())
    recipe = RECIPES / "quickstart_causal_lm_texts.yaml"
    bundle = fit(recipe, tmp_path / "codes", tmp_path / "run", *smaller, "--model.prior.texts.captions=1.0")
    prompt = ("--count=1", "--prompt", "grey", "--guidance=2")
    run("sample", "--prior", bundle, *prompt, "--out", tmp_path / "samples", "--device", "cpu")
    assert len(list((tmp_path / "samples" / "pictures").glob("*.png"))) == 1
    exported, out = tmp_path / "codes" / "train", tmp_path / "captions.jsonl"
    command = ["captions", str(bundle), str(exported), "--out", str(out), "--batch-size=2", "--device=cpu"]
    assert captions(command) == 0 and capsys.readouterr().out.endswith(f"\n3 captions; written to {out}\n")
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["key"] for line in lines] == ["0.png", "1.png", "2.png"]
    codes_of_pictures = stored_sequences(exported)[np.arange(3)]
    assert [line["text"] for line in lines] == list(vltok.load_prior(bundle).captions(codes_of_pictures))
    # codes of another tokenizer, a prior that learned no captions, a folder of nothing: a line, and the file stays
    written = out.read_bytes()
    other = shutil.copytree(bundle, tmp_path / "other")
    config = (other / "config.yaml").read_text(encoding="utf-8")
    tokenizer = vltok.fingerprint(codes / "run" / "bundle")
    for change, message in (
        ((tokenizer, "f" * 64), "are of another tokenizer"),
        (("captions: 1.0", "captions: 0.0"), "writes no captions: train it with texts"),
    ):
        assert change[0] in config
        (other / "config.yaml").write_text(config.replace(*change), encoding="utf-8")
        assert captions(["captions", str(other), *command[2:]]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert captions([*command[:2], str(tmp_path), *command[3:]]) == 1 and out.read_bytes() == written


def test_the_quickstarts_has_two_million_parameters():
    with torch.device("meta"):
        prior = CausalLM(CodeSpec(512, (4, 8), (8, 8)), **prior_of(RECIPES / "quickstart_causal_lm.yaml"))
    assert sum(parameter.numel() for parameter in prior.parameters()) == pytest.approx(2.0e6, rel=0.05)


def test_adapters_train_and_their_bundle_needs_no_pretrained_model(codes, tmp_path, capsys):
    text = tmp_path / "text"
    config = AutoConfig.for_model("llama", vocab_size=50, max_position_embeddings=1300, **SMALL)
    AutoModelForCausalLM.from_config(config).save_pretrained(text)
    changed = (f"--model.prior.pretrained={text}", "--model.prior.codebook_size=512", "--model.prior.classes=null")
    grid = ("--model.prior.factors=[4, 8]", "--model.prior.regions=[8, 8]", "--model.prior.label_dropout=0")
    bundle = fit(RECIPES / "imagenet_smollm2_lora.yaml", codes, tmp_path / "run", *changed, *grid)
    shutil.rmtree(text)
    prior = vltok.load_prior(bundle)
    assert sum("lora_" in name for name, _ in prior.named_parameters()) == 2 * 7
    assert prior.sample(2, vltok.SamplingConfig()).validate(prior.spec)
