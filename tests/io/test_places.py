"""Prior bundles, and how they find their tokenizer again."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import vltok
from vltok.errors import UserError
from vltok.interfaces import Prior
from vltok.io.bundles import fingerprint, load_prior, prior_fingerprint, save_prior
from vltok.io.places import find_tokenizer, matching, places_of, resolve
from vltok.io.recipes import instantiate, parse_tree, recipe_parser

from ..cli.exports import write_bundle

SIZES = {"width": 8, "heads": 2, "position_layers": 1, "content_layers": 1}
CONFIG = {
    "class_path": "dq-transformer",
    "init_args": {"codebook_size": 300, "factors": [4, 8], "regions": [2, 2], **SIZES},
}


def build() -> Prior:
    parser = recipe_parser("test")
    parser.add_subclass_arguments(Prior, "prior", required=True)
    return instantiate(parser, parse_tree(parser, {"prior": CONFIG})).prior


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a tokenizer and a prior of its codes."""
    write_bundle(tmp_path / "project" / "tokenizer")
    tokenizer = fingerprint(tmp_path / "project" / "tokenizer")
    bundle = tmp_path / "project" / "runs" / "prior"
    places = places_of(tmp_path / "project" / "tokenizer", bundle)
    save_prior(build(), bundle, tokenizer, places, card="Trained.", metrics={"loss": 1.5})
    return tmp_path / "project"


def test_a_bundle_gives_the_same_prior(tmp_path: Path) -> None:
    prior = build()
    save_prior(prior, tmp_path / "prior", "0" * 64)
    loaded = vltok.load_prior(tmp_path / "prior")
    assert not loaded.training and loaded.spec == prior.spec
    for name, value in prior.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert prior_fingerprint(tmp_path / "prior") != prior_fingerprint(_another(tmp_path / "another"))


def _another(path: Path) -> Path:
    torch.manual_seed(9)
    save_prior(build(), path, "0" * 64)
    return path


def test_the_card_of_a_prior_shows_how_to_draw(folder: Path) -> None:
    card = (folder / "runs" / "prior" / "README.md").read_text()
    assert "vltok.load_prior" in card and "vltok sample" in card and "| loss ↓ | 1.5000 nats |" in card
    assert yaml.safe_load(card.split("---\n")[1])["tags"][:2] == ["vltok", "image-generation"]


def test_one_kind_is_not_taken_for_the_other(folder: Path) -> None:
    with pytest.raises(UserError, match="holds a prior, not a tokenizer"):
        vltok.load_tokenizer(folder / "runs" / "prior")
    with pytest.raises(UserError, match="holds a tokenizer, not a prior"):
        load_prior(folder / "tokenizer")


def test_the_tokenizer_is_found_where_it_was(folder: Path) -> None:
    assert Path(find_tokenizer(folder / "runs" / "prior")).samefile(folder / "tokenizer")


def test_the_tokenizer_is_found_when_the_project_was_moved(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "moved")
    found = find_tokenizer(tmp_path / "moved" / "runs" / "prior")
    assert Path(found).samefile(tmp_path / "moved" / "tokenizer")


def test_the_tokenizer_is_found_when_the_prior_was_moved(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "runs" / "prior", tmp_path / "alone")
    assert Path(find_tokenizer(tmp_path / "alone")).samefile(folder / "tokenizer")


def test_another_tokenizer_in_its_place_is_not_taken(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "tokenizer", tmp_path / "elsewhere")
    write_bundle(folder / "tokenizer", seed=1)
    with pytest.raises(UserError, match="say where its bundle is with --tokenizer"):
        find_tokenizer(folder / "runs" / "prior")
    with pytest.raises(UserError, match=r"--tokenizer '.*tokenizer' is another one \(.{12}…\) than the tokenizer"):
        find_tokenizer(folder / "runs" / "prior", folder / "tokenizer")
    given = find_tokenizer(folder / "runs" / "prior", tmp_path / "elsewhere")
    assert given == str(tmp_path / "elsewhere")


def test_a_damaged_reference_is_named(folder: Path) -> None:
    config = folder / "runs" / "prior" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    del content["tokenizer"]
    config.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="is damaged: it has no tokenizer"):
        find_tokenizer(folder / "runs" / "prior")


def test_places_read_from_where_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "bundle").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    absolute = str(tmp_path / "a" / "bundle")
    assert places_of("a/bundle", "b/c") == ("../../a/bundle", absolute)
    assert places_of("a/bundle", "a") == ("./bundle", absolute)
    assert places_of("somebody/tokenizer", "a") == ("somebody/tokenizer",)
    assert resolve(("./bundle", absolute, "/nowhere", "somebody/tokenizer"), tmp_path / "a") == [
        absolute,
        "somebody/tokenizer",
    ]


def test_what_is_no_bundle_matches_nothing(tmp_path: Path) -> None:
    assert matching("0" * 64, [str(tmp_path), str(tmp_path / "nowhere")]) is None
