"""Objects built from recipes, as a notebook builds them."""

from pathlib import Path

import pytest
import yaml

import vltok
from vltok.errors import UserError
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.quantizers import EMAVectorQuantizer

from ..cli.runs import RECIPE


@pytest.fixture
def recipe() -> dict:
    return yaml.safe_load(RECIPE)


def test_a_whole_recipe(recipe: dict) -> None:
    built = vltok.build(recipe, overrides={"model.tokenizer.quantizer.size": 24, "trainer": {"max_steps": 7}})
    assert built.model.tokenizer.spec.codebook_size == 24
    assert built.data.size == 16 and built.trainer["max_steps"] == 7
    assert type(built.trainer["callbacks"][0]).__name__ == "ExponentialMovingAverage"


def test_a_part_of_a_recipe_asks_for_no_data(recipe: dict) -> None:
    recipe["data"] = {"class_path": "folder", "init_args": {"root": "nowhere"}}
    assert isinstance(vltok.build(recipe, "model.tokenizer"), vltok.Tokenizer)
    assert isinstance(vltok.build(recipe, "model.tokenizer.quantizer"), EMAVectorQuantizer)


def test_a_file_with_a_base_and_a_recipe_of_the_wheel(
    recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vltok.build("quickstart", "model.tokenizer.quantizer").size == 512
    Path("mine.yaml").write_text("base: quickstart.yaml\nmodel.tokenizer.quantizer.size: 32\n")
    assert vltok.build("mine.yaml", "model.tokenizer.quantizer").size == 32
    based = {"base": "mine.yaml", "model.tokenizer.quantizer.dimension": 2}
    quantizer = vltok.build(based, "model.tokenizer.quantizer")
    assert (quantizer.size, quantizer.dimension) == (32, 2)


def test_one_component() -> None:
    encoder = vltok.build({"class_path": "patch", "init_args": {"factors": [4, 8], "width": 8}})
    assert isinstance(encoder, PatchEncoder)
    path = "vltok.tokenizers.encoders.PatchEncoder"
    assert isinstance(vltok.build({"class_path": path, "init_args": {"factors": [4], "width": 8}}), PatchEncoder)


@pytest.mark.parametrize(
    ("tree", "part", "message"),
    [
        ("quickstrat", None, "did you mean 'quickstart'?"),
        ("nowhere/a.yaml", None, "recipe 'nowhere/a.yaml' cannot be read"),
        ("quickstart", "model.tokeniser", "no part of the recipe is called 'model.tokeniser'.*'model.tokenizer'"),
        ("quickstart", "model.tokenizer.quantizer.size", "model.tokenizer.quantizer.size is no component"),
        ({"class_path": "ptch"}, None, "did you mean 'patch'?"),
        ({"class_path": "vqgan"}, None, "'vqgan' is the name of a encoder and of a decoder: write vltok"),
        ({"class_path": "patch", "init_args": {"widht": 8}}, None, "did you mean 'width'?"),
        ({"class_path": "patch", "init_args": {"factors": [4, 8], "width": object()}}, None, "width"),
        ({"base": "quickstart.yaml", "seed_everything": object()}, None, "here stands a object"),
    ],
)
def test_what_is_wrong_is_one_line(tree: object, part: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        vltok.build(tree, part)
