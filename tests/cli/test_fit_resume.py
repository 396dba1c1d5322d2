"""What `vltok fit --resume` takes, and what it refuses before it touches anything."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from vltok.cli.main import main
from vltok.errors import UserError
from vltok.training.checkpoints import previous_of, read_checkpoint
from vltok.verbs.resume_rules import LENGTH, THIS_TIME, resumed_recipe
from vltok.verbs.run_folder import RunFolder

from .exports import contents
from .runs import one_line


def test_a_damaged_checkpoint_falls_back_to_the_one_before(run: Path, capsys: pytest.CaptureFixture) -> None:
    folder = RunFolder(run)
    assert folder.previous_checkpoint == previous_of(folder.last_checkpoint)
    assert main(["fit", "--resume", "--out", str(run), "--trainer.max_steps", "4"]) == 0
    assert torch.load(folder.previous_checkpoint, weights_only=True)["global_step"] == 2
    os.truncate(folder.last_checkpoint, 1000)
    with pytest.warns(UserWarning, match=r"last.ckpt' is damaged: .*; going on from the one before it, of step 2"):
        assert main(["fit", "--resume", "--out", str(run)]) == 0
    assert torch.load(folder.last_checkpoint, weights_only=True)["global_step"] == 4
    for checkpoint in (folder.last_checkpoint, folder.previous_checkpoint):
        os.truncate(checkpoint, 1000)
    capsys.readouterr()
    assert main(["fit", "--resume", "--out", str(run)]) == 1
    assert "is damaged" in one_line(capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.tokenizer.quantizer.size=16"], "model.tokenizer.quantizer.size is 24 there and 16 here"),
        (["--model.tokenizer.gate=random"], "model.tokenizer.gate is entropy there and random here"),
        (["--model.learning_rate=1", "--data.size=32"], "model.learning_rate is 4.5e-06 there and 1.0 here, data.size"),
        (["--seed_everything=4"], "seed_everything is 3 there and 4 here"),
        (["--trainer.callbacks=null"], "trainer.callbacks is [{'class_path'"),
        (["--trainer.precision=bf16-mixed"], "trainer.precision"),
        (["--trainer.max_steps=1"], "trainer.max_steps is 1, but the run is at step 2 already"),
    ],
)
def test_what_trains_something_else_is_refused_and_changes_nothing(
    run: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    before = contents(run)
    assert main(["fit", "--resume", "--out", str(run), *options]) == 1
    assert message in one_line(capsys)
    assert contents(run) == before


def test_how_it_is_trained_is_for_this_time_and_how_long_is_the_run_s_own(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    watch = ["--trainer.max_time=00:00:10:00", "--trainer.limit_val_batches=1", "--data.workers=1"]
    assert main(["fit", "--resume", "--out", str(run), *watch, "--trainer.enable_progress_bar=false"]) == 0
    assert (run / "config.yaml").read_text() == text
    assert main(["fit", "--resume", "--out", str(run), *watch, "--trainer.max_steps=3"]) == 0
    own, now = yaml.safe_load(text), yaml.safe_load((run / "config.yaml").read_text())
    assert now == {**own, "trainer": {**own["trainer"], "max_steps": 3}}
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 3 and checkpoint["vltok"]["processes"] == 1


def test_the_lists_name_options_that_exist(finished: tuple[Path, str]) -> None:
    own = yaml.safe_load((finished[0] / "config.yaml").read_text())
    for name in (*LENGTH, *THIS_TIME):
        part, key = name.split(".")
        if part == "trainer":
            assert key in own["trainer"], name
            assert resumed_recipe(own, {**own, "trainer": {**own["trainer"], key: "other"}})
    for key in set(own["trainer"]) - {name.removeprefix("trainer.") for name in (*LENGTH, *THIS_TIME)} - {"callbacks"}:
        with pytest.raises(UserError, match=f"trainer.{key} is"):
            resumed_recipe(own, {**own, "trainer": {**own["trainer"], key: "other"}})


def test_a_function_that_makes_a_callback_is_compared(finished: tuple[Path, str]) -> None:
    own = yaml.safe_load((finished[0] / "config.yaml").read_text())
    made = [*own["trainer"]["callbacks"], {"class_path": "tests.cli.test_fit_resume.one_line"}]
    changed = {**own, "trainer": {**own["trainer"], "callbacks": made}}
    with pytest.raises(UserError, match=r"trainer\.callbacks"):
        resumed_recipe(own, changed)
    assert resumed_recipe(changed, changed) == changed


def test_callbacks_that_keep_nothing_come_and_go(finished: tuple[Path, str]) -> None:
    own = yaml.safe_load((finished[0] / "config.yaml").read_text())
    watching = {"class_path": "vltok.training.PictureLogger", "init_args": {"count": 2}}
    more = [*own["trainer"]["callbacks"], watching]
    assert resumed_recipe(own, {**own, "trainer": {**own["trainer"], "callbacks": more}}) == own


def test_a_checkpoint_of_another_model_is_refused(run: Path, capsys: pytest.CaptureFixture) -> None:
    path = run / "checkpoints" / "last.ckpt"
    whole = torch.load(path, weights_only=True)

    def refused(message: str, **changes: object) -> None:
        torch.save({**whole, **changes}, path)
        before = contents(run)
        assert main(["fit", "--resume", "--out", str(run), "--trainer.max_steps", "4"]) == 1
        assert message in one_line(capsys)
        assert contents(run) == before

    weights = dict(whole["state_dict"])
    name, value = next(iter(weights.items()))
    refused(f"is of another model: {name} is", state_dict={**weights, name: value.flatten().repeat(2)})
    refused("other.weight is only in the checkpoint", state_dict={**weights, "other.weight": torch.ones(1)})
    del weights[name]
    refused(f"{name} is only in the recipe's model", state_dict=weights)
    (optimizer,) = whole["optimizer_states"]
    torch.save({**whole, "optimizer_states": [{**optimizer, "param_groups": []}]}, path)
    assert main(["fit", "--resume", "--out", str(run), "--trainer.max_steps", "4"]) == 1
    line = one_line(capsys)
    assert "error: the training cannot go on from" in line and "different number of parameter groups" in line
