"""What a recipe of a prior leaves out follows from the codes that it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import vltok
from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.testing.priors import random_codes
from vltok.verbs.run_folder import RunFolder
from vltok.verbs.training_recipe import TrainingRecipe

from ..distributions import installed
from ..sequences.code_exports import export_codes

SPEC = CodeSpec(24, (4, 8), (2, 2))
PRIOR = {
    "class_path": "dq-transformer",
    "init_args": {"width": 8, "heads": 2, "position_layers": 1, "content_layers": 1},
}

SOURCE = """
from vltok.interfaces import Prior
from vltok.sequences.source import CodeSource, SequenceFacts, SequencesInMemory
from vltok.codes import CodeSpec
from vltok.testing.priors import random_codes
class Plain(Prior):
    def __init__(self, width: int = 3): super().__init__()
class Sized(Prior):
    def __init__(self, codebook_size: int): super().__init__(); self._spec = CodeSpec(codebook_size)
    @property
    def spec(self): return self._spec
for each in (Plain, Sized):
    for name in each.__abstractmethods__: setattr(each, name, None)
    each.__abstractmethods__ = frozenset()
class Drawn(CodeSource):
    held_out = None
    def __init__(self, size: int = 7): super().__init__(); self.size = size
    @property
    def training(self):
        spec = CodeSpec(self.size, max_length=5)
        return SequencesInMemory(random_codes(spec, 4), SequenceFacts("memory", spec, "0" * 64))
    def train_dataloader(self): return []
    def val_dataloader(self): return []
"""
POINTS = {
    "prior": {"plain": "made_module:Plain", "sized": "made_module:Sized"},
    "data": {"drawn": "made_module:Drawn"},
}


@pytest.fixture
def codes(tmp_path: Path) -> str:
    export_codes(tmp_path / "codes", random_codes(SPEC, 4, classes=4), spec=SPEC)
    return str(tmp_path / "codes")


def recipe(prior: Any, data: Any) -> dict[str, Any]:
    training = {"class_path": "vltok.training.PriorTraining", "init_args": {"prior": prior}}
    return {"model": training, "data": data}


def test_a_prior_is_built_for_the_codes(codes: str, tmp_path: Path) -> None:
    data = {"class_path": "codes", "init_args": {"root": codes, "batch_size": 2}}
    found = TrainingRecipe.of(recipe(PRIOR, data))
    assert found.build().model.prior.spec == SPEC
    # it is written into the run's recipe, and reads back equal
    text = found.text(RunFolder(tmp_path))
    assert TrainingRecipe.of(yaml.safe_load(text)).config.model == found.config.model


def test_options_are_followed(codes: str) -> None:
    prior = ["--model", "vltok.training.PriorTraining", "--model.prior=fixed-raster", "--data=codes"]
    with pytest.raises(UserError, match="a sequence has codes of one factor or of none, not of"):
        TrainingRecipe.of_arguments([*prior, "--data.root", codes]).build()


def test_what_is_said_all_the_same_must_agree(codes: str) -> None:
    data = {"class_path": "codes", "init_args": {"root": codes, "batch_size": 2}}
    built = TrainingRecipe.of(recipe(PRIOR, data), {"model.prior.codebook_size": 9}).build()
    assert built.model.prior.spec.regions == (2, 2)  # what is not said follows all the same
    with pytest.raises(UserError, match=r"model.prior has codebook_size 9, but the codes in .* have 24: leave it out"):
        built.model.check_data(built.data)


def test_codes_that_are_not_to_be_had(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = {"class_path": "codes", "init_args": {"root": str(tmp_path / "nowhere")}}
    with pytest.raises(UserError, match="nowhere holds no finished codes"):
        vltok.build(recipe(PRIOR, data), "model.prior")
    with pytest.raises(UserError, match="a prior is trained on codes, which Photos does not give"):
        vltok.build(recipe(PRIOR, "photos"), "model.prior")
    # a recipe can be looked at all the same
    written = tmp_path / "recipe.yaml"
    written.write_text(yaml.safe_dump(recipe(PRIOR, data)))
    with pytest.raises(SystemExit):
        TrainingRecipe.of_arguments(["--config", str(written), "--print_config"])
    prior = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["prior"]["init_args"]
    assert prior["position_transformer"]["width"] == 8


def test_a_plugin_gets_what_it_has_an_argument_for_from_any_source(tmp_path: Path) -> None:
    with installed(tmp_path, "made", POINTS, SOURCE):
        assert not hasattr(TrainingRecipe.of(recipe("plain", "drawn")).build().model.prior, "codebook_size")
        data = {"class_path": "drawn", "init_args": {"size": 11}}
        assert TrainingRecipe.of(recipe("sized", data)).build().model.prior.spec.codebook_size == 11
