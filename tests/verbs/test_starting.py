"""Trainings that begin with a bundle."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import vltok
from tests.cli.exports import PRIOR, write_bundle, write_prior
from tests.cli.runs import RECIPE, one_line
from tests.io.importers.foreign import vqgan_state
from vltok.cli.main import main
from vltok.errors import UserError

#: Nothing changes in a step so small.
STILL = ["--model.learning_rate", "1e-30", "--trainer.callbacks", "null", "--model.calibration_batches", "1"]


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return str(tmp_path / "tiny.yaml")


def test_an_imported_model_is_fine_tuned_and_needs_its_source_no_more(recipe, tmp_path, capsys) -> None:
    torch.save({"state_dict": vqgan_state()}, tmp_path / "vqgan.ckpt")
    imported, out = tmp_path / "imported", tmp_path / "run"
    assert main(["import", str(tmp_path / "vqgan.ckpt"), "--out", str(imported)]) == 0
    first = vltok.load_tokenizer(imported)
    assert main(["fit", "--config", recipe, "--start", str(imported), "--out", str(out), *STILL]) == 0
    assert f"starting from {imported}" in capsys.readouterr().out
    shutil.rmtree(imported)
    tuned = vltok.load_tokenizer(out / "bundle")
    assert tuned.config == first.config and tuned.spec.granularities == 1
    for name, value in first.state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], value, msg=name)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["start"] == str(imported) and config["model"]["init_args"]["tokenizer"]["class_path"] == "dq-vae"
    assert vltok.info(out / "bundle").provenance["recipe"]["start"] == str(imported)
    assert main(["fit", "--resume", "--out", str(out), "--trainer.max_steps", "3"]) == 0
    assert main(["fit", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")]) == 1
    assert f"there is no bundle '{imported}'" in one_line(capsys)


def test_options_change_what_the_bundle_is_built_from(recipe, tmp_path) -> None:
    write_bundle(tmp_path / "bundle")
    said: list[str] = []
    overrides = {"model.tokenizer.budget.ratios": {4: 0.25, 8: 0.75}, "trainer.max_steps": 1}
    run = vltok.fit(recipe, out=tmp_path / "run", overrides=overrides, start=tmp_path / "bundle", progress=said.append)
    assert vltok.info(run.bundle).ratios == {4: 0.25, 8: 0.75} and f"starting from {tmp_path / 'bundle'}" in said
    overrides = {"model.tokenizer.gate": {"class_path": "entropy", "init_args": {"ratios": {4: 0.5, 8: 0.5}}}}
    overrides |= {"model.tokenizer.budget": None, "trainer.max_steps": 1}
    vltok.fit(recipe, out=tmp_path / "gate", overrides=overrides, start=tmp_path / "bundle", progress=said.append)
    assert any("of it have no place: gate." in line for line in said)


def test_what_cannot_begin_a_training_is_one_line(recipe, tmp_path, capsys) -> None:
    write_bundle(tmp_path / "bundle")
    write_prior(tmp_path / "prior", PRIOR, "0" * 64)
    shape = ["--model.tokenizer.quantizer.size", "9"]
    for start, more, message in [
        ("bundle", shape, "quantizer.codebook is [300, 4] there and [9, 4] in the recipe"),
        ("prior", [], "prior"),
        ("nowhere", [], "there is no bundle"),
    ]:
        arguments = ["--start", str(tmp_path / start), "--out", str(tmp_path / "run"), *more]
        assert main(["fit", "--config", recipe, *arguments]) in (1, 2)
        assert message in one_line(capsys) and not (tmp_path / "run" / "config.yaml").exists()
    with pytest.raises(UserError, match="there is no bundle"):
        vltok.fit(recipe, out=tmp_path / "run", start=tmp_path / "nowhere")
