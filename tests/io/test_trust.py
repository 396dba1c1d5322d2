"""What a bundle may name: registered components, and with the user's word anything."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import vltok
from vltok.errors import UserError
from vltok.io.bundles import load_tokenizer
from vltok.io.trust import only_imports

from ..distributions import installed

OLD = Path(__file__).parent / "bundles_0_1_0"
#: Leaves a file beside itself when it is imported.
PAYLOAD = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from vltok.tokenizers.quantizers import EMAVectorQuantizer
class X(EMAVectorQuantizer): pass
def call(*arguments): raise AssertionError("called")
"""
#: A registered component with arguments of every type that a value may name an import by.
PLUGIN = """
from collections.abc import Callable
from types import ModuleType
from typing import Any
from torch import nn
from vltok.tokenizers.quantizers import VectorQuantizer
class Quantizer(VectorQuantizer):
    def __init__(
        self,
        size: int,
        dimension: int,
        activation: Callable[..., nn.Module] = nn.ReLU,
        layer: nn.Module | None = None,
        layers: list[nn.Module] | None = None,
        kind: type[nn.Module] | None = None,
        module: ModuleType | None = None,
        anything: Any = None,
        untyped=None,
        named: dict | None = None,
        pretrained: str | bool = False,
        note: str = "",
    ) -> None:
        super().__init__(size, dimension)
        self.given = (activation, layer, layers, kind, module, anything, untyped, named)
"""
POINTS = {"quantizer": {"their-vq": "outsider_module:Quantizer"}}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with a module beside it, in the current folder, which is on the path as in an interactive Python."""
    folder = shutil.copytree(OLD / "tokenizer", tmp_path / "bundle")
    (folder / "payload.py").write_text(PAYLOAD)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend("")
    yield folder
    sys.modules.pop("payload", None)


@pytest.fixture
def change(bundle: Path) -> Callable[[tuple[str, ...], Any], None]:
    """Change what a bundle describes, at some keys below `init_args`."""

    def change(keys: tuple[str, ...], value: Any) -> None:
        content = yaml.safe_load((bundle / "config.yaml").read_text())
        place = content["tokenizer"]["init_args"]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        (bundle / "config.yaml").write_text(yaml.safe_dump(content))

    return change


_X = {"class_path": "payload.X", "init_args": {"size": 8, "dimension": 2}}


@pytest.mark.parametrize(
    "value",
    [
        _X,
        "payload.X",
        "payload.yaml",
        "./payload.yaml",
        "{class_path: payload.X}",
        {"class_path": "payload.X.__init__"},
        {"class_path": "payload.call", "init_args": {}},
        {"class_path": "os.system"},
        {"class_path": "torch.nn.Identity"},
        {"class_path": ["payload.X"]},
        {"class_path": 3},
    ],
    ids=str,
)
def test_a_bundle_runs_nothing_beside_it(value: Any, bundle: Path, change) -> None:
    (bundle / "payload.yaml").write_text(yaml.safe_dump(_X))
    change(("quantizer",), value)
    with pytest.raises(UserError, match=r"tokenizer\.init_args\.quantizer.*no registered component") as raised:
        load_tokenizer(".")
    assert "trust=True" in str(raised.value) and "--trust" in str(raised.value) and "\n" not in str(raised.value)
    assert "payload" not in sys.modules and not (bundle / "ran").exists()


def test_trust_runs_it(bundle: Path, change) -> None:
    change(("quantizer",), _X)
    assert type(load_tokenizer(".", trust=True).quantizer).__name__ == "X"
    assert (bundle / "ran").exists()


def test_the_class_of_a_registered_component_may_be_written_out(bundle: Path, change) -> None:
    init_args = {"size": 8, "dimension": 2}
    path = "vltok.tokenizers.quantizers.EMAVectorQuantizer"
    change(("quantizer",), {"class_path": path, "init_args": init_args})
    assert type(load_tokenizer(bundle).quantizer).__name__ == "EMAVectorQuantizer"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation", "payload.call"),
        ("activation", "os.system"),
        ("activation", "torch.nn.GELU"),
        ("activation", {"class_path": "payload.X"}),
        ("activation", "{class_path: payload.X}"),
        ("layer", "payload.X"),
        ("layer", "Identity"),
        ("layer", {"class_path": "torch.nn.Identity"}),
        ("layer", "{class_path: torch.nn.Identity}"),
        ("layers", ["torch.nn.Identity"]),
        ("layers", "[{class_path: payload.X}]"),
        ("kind", "payload.X"),
        ("module", "payload"),
        ("module", "os"),
        ("anything", {"class_path": "payload.X", "init_args": {}}),
        ("untyped", {"class_path": "payload.X"}),
        ("named", {"a": [{"class_path": "payload.X"}]}),
        ("layer.class_path", "payload.X"),
        ("pretrained", "somebody/model"),
        ("pretrained", True),
        ("note", "hf-hub:somebody/model"),
        ("note", "\thf-hub:somebody/model"),
        ("note", "/etc/passwd"),
        ("note", "../elsewhere"),
    ],
    ids=str,
)
def test_no_argument_imports_anything_or_leads_elsewhere(
    key: str, value: Any, bundle: Path, change, tmp_path: Path
) -> None:
    with installed(tmp_path, "outsider", POINTS, PLUGIN):
        change(("quantizer",), {"class_path": "their-vq", "init_args": {"size": 8, "dimension": 2, key: value}})
        with pytest.raises(UserError) as raised:
            load_tokenizer(".")
    assert "trust=True" in str(raised.value) and "quantizer" in str(raised.value), raised.value
    assert "\n" not in str(raised.value)
    assert "payload" not in sys.modules and not (bundle / "ran").exists()


def test_a_plugins_own_defaults_need_no_trust(bundle: Path, change, tmp_path: Path) -> None:
    with installed(tmp_path, "outsider", POINTS, PLUGIN):
        change(("quantizer",), {"class_path": "their-vq", "init_args": {"size": 8, "dimension": 2}})
        with pytest.raises(UserError, match="do not fit what"):  # it is built; the weights are of another quantizer
            load_tokenizer(".")
        change(("quantizer", "init_args", "activation"), "torch.nn.GELU")
        with pytest.raises(UserError, match="do not fit what"):
            load_tokenizer(".", trust=True)


#: A component with a part of a kind of its own, and settings in a class of its own.
WITH_PARTS = """
from dataclasses import dataclass
from vltok.tokenizers.quantizers import VectorQuantizer
class Part:
    def __init__(self, x: int) -> None:
        self.x = x
class Declared(Part): pass
class Undeclared(Part): pass
@dataclass
class Settings:
    rank: int = 1
class Quantizer(VectorQuantizer):
    def __init__(self, size: int, dimension: int, part: Part, settings: Settings | None = None) -> None:
        super().__init__(size, dimension)
"""


def test_a_registered_component_of_another_kind_is_no_part(bundle: Path, change) -> None:
    change(("quantizer",), {"class_path": "vltok.tokenizers.decoders.PixelShuffleDecoder"})
    with pytest.raises(UserError, match=r"tokenizer\.quantizer: .*PixelShuffleDecoder' is no Quantizer; there are: "):
        load_tokenizer(bundle)


def test_a_plugin_declares_the_kinds_that_bundles_may_name(bundle: Path, change, tmp_path: Path) -> None:
    points = {
        "quantizer": {"with-parts": "outsider_module:Quantizer"},
        "kinds": {"thing": "outsider_module:Part"},
        "thing": {"declared": "outsider_module:Declared"},
    }
    part = {"class_path": "declared", "init_args": {"x": 3}}
    arguments = {"size": 8, "dimension": 2, "part": part, "settings": {"rank": 4}}
    with installed(tmp_path, "outsider", points, WITH_PARTS):
        change(("quantizer",), {"class_path": "with-parts", "init_args": arguments})
        with pytest.raises(UserError, match="do not fit what"):  # it is built; the weights are of another quantizer
            load_tokenizer(".")
        change(("quantizer", "init_args", "part", "class_path"), "outsider_module.Declared")
        with pytest.raises(UserError, match="do not fit what"):
            load_tokenizer(".")
        change(("quantizer", "init_args", "part", "class_path"), "outsider_module.Undeclared")
        with pytest.raises(UserError, match="trust=True"):
            load_tokenizer(".")


def test_what_lies_in_the_current_folder_is_not_installed(bundle: Path, change) -> None:
    information = bundle / "outsider-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[vltok.quantizers]\ntheirs = payload:X\n")
    change(("quantizer",), {**_X, "class_path": "theirs"})
    with pytest.raises(UserError, match="no quantizer is called 'theirs'"):
        load_tokenizer(".")
    assert not (bundle / "ran").exists()


def test_the_command_does_not_look_for_modules_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text('open("ran", "w").close()')
    command = [sys.executable, "-m", "vltok", "plugins", "--help"]
    path = {"PYTHONPATH": str(Path(vltok.__file__).parents[1]), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_what_may_be_imported_is_as_it_was_afterwards(bundle: Path, change) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--module", type=torch.nn.Module)
    with pytest.raises(RuntimeError), only_imports(set()):
        raise RuntimeError
    load_tokenizer(bundle)
    assert parser.parse_args(["--module=torch.nn.Identity"]).module.class_path == "torch.nn.Identity"


def test_bundles_that_are_read_at_once_do_not_unbind_each_other(bundle: Path, change) -> None:
    """One thread ends while another is still reading: what that one reads stays bound."""
    begun, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with only_imports(set()):
            begun.set()
            go_on.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait(10)
    change(("quantizer",), _X)
    threading.Timer(0.1, go_on.set).start()
    with pytest.raises(UserError, match="no registered component"):
        load_tokenizer(".")
    thread.join()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--module", type=torch.nn.Module)
    parser.parse_args(["--module=torch.nn.Identity"])
