"""Bundles of an older format load: what was renamed since has its present name."""

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

import vltok
from vltok.errors import UserError
from vltok.io.migrations import MIGRATIONS, Migration, present

OLD = Path(__file__).parent / "bundles_0_1_0"


def _config(content):
    described = content["tokenizer"]
    quantizer = described["init_args"]["quantizer"]
    arguments = {"size" if key == "codes" else key: value for key, value in quantizer["init_args"].items()}
    parts = {**described["init_args"], "quantizer": {**quantizer, "init_args": arguments}}
    return {**content, "tokenizer": {**described, "init_args": parts}}


def _tensor(content, name):
    assert content["format"] == 1 and content["tokenizer"]["class_path"] == "dq-vae"
    return name.replace("quantizer.table", "quantizer.codebook")


@pytest.fixture
def older(tmp_path) -> Path:
    """A bundle in which an argument and an attribute have other names, and the present format is the next one."""
    bundle = shutil.copytree(OLD / "tokenizer", tmp_path / "bundle")
    state = load_file(bundle / "model.safetensors")
    renamed = {name.replace("quantizer.codebook", "quantizer.table"): value for name, value in state.items()}
    assert renamed.keys() != state.keys()
    save_file(renamed, bundle / "model.safetensors")
    weights = (bundle / "model.safetensors").read_bytes()
    content = yaml.safe_load((bundle / "config.yaml").read_text())
    quantizer = content["tokenizer"]["init_args"]["quantizer"]["init_args"]
    quantizer["codes"] = quantizer.pop("size")
    content["weights"] = {"sha256": hashlib.sha256(weights).hexdigest(), "size": len(weights)}
    (bundle / "config.yaml").write_text(yaml.safe_dump(content))
    return bundle


def test_what_was_renamed_has_its_present_name(older, tmp_path, monkeypatch) -> None:
    with pytest.raises(UserError):
        vltok.load_tokenizer(older)
    fingerprint = vltok.fingerprint(older)
    monkeypatch.setitem(MIGRATIONS, 1, Migration(_config, _tensor))
    assert present() == 2 and vltok.fingerprint(older) == fingerprint
    tokenizer, original = vltok.load_tokenizer(older), load_file(OLD / "tokenizer" / "model.safetensors")
    assert all(value.equal(original[name]) for name, value in tokenizer.state_dict().items())
    assert vltok.info(older).codes.codebook_size == 8
    tokenizer.save_pretrained(tmp_path / "again")
    assert yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())["format"] == 2
    assert vltok.load_tokenizer(tmp_path / "again").config == tokenizer.config
    monkeypatch.delitem(MIGRATIONS, 1)
    with pytest.raises(UserError, match=r"has format 2, but vltok .* reads format 1"):
        vltok.load_tokenizer(tmp_path / "again")


def test_every_older_format_has_a_migration() -> None:
    assert sorted(MIGRATIONS) == list(range(1, present()))
