"""The registry, read from real distributions' metadata that a test puts on the path."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vltok import registry
from vltok.errors import UserError


@pytest.fixture
def install(tmp_path: Path, monkeypatch):
    """Install a distribution that declares gates, with one module of given source."""

    installed = []

    def install(name: str, entry_points: dict[str, str], source: str = "") -> None:
        installed.append(f"{name}_module")
        folder = tmp_path / name
        information = folder / f"{name}-1.5.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = [f"{key} = {target}" for key, target in entry_points.items()]
        (information / "entry_points.txt").write_text("\n".join(["[vltok.gates]", *lines]) + "\n")
        (folder / f"{name}_module.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))

    yield install
    for name in installed:
        sys.modules.pop(name, None)
    registry._import.cache_clear()


WORKING = """
from vltok.tokenizers.gates import FixedGate
class Plain(FixedGate):
    pass
"""


def test_a_plugin_is_found_beside_the_built_in_components(install) -> None:
    install("outsider", {"plain": "outsider_module:Plain"}, WORKING)
    names = [component.name for component in registry.components("gate")]
    assert {"feature", "entropy", "random", "fixed", "plain"} <= set(names) and names == sorted(names)
    found = registry.find("gate", "plain")
    assert (found.distribution, found.version, found.class_path) == ("outsider", "1.5", "outsider_module.Plain")
    assert found.load().__name__ == "Plain"


def test_reading_imports_nothing(install) -> None:
    install("eager", {"eager": "eager_module:Plain"}, "raise RuntimeError('imported')")
    assert registry.find("gate", "eager").name == "eager"
    assert "eager_module" not in sys.modules


def test_reading_does_not_import_torch() -> None:
    script = (
        "import json, sys; from vltok import registry; "
        "[registry.components(kind) for kind in registry.KINDS]; "
        "registry.resolve_names({'gate': {'class_path': 'entropy'}}); "
        "print(json.dumps([name for name in ('torch', 'lightning', 'timm', 'numpy') if name in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == []


def test_a_plugin_that_cannot_be_imported_harms_no_other(install) -> None:
    install("broken", {"broken": "broken_module:Gate", "absent": "nowhere:Gate"}, "raise RuntimeError('no GPU here')")
    install("misspelt", {"misspelt": "misspelt_module:Plian"}, WORKING)
    with pytest.raises(
        UserError, match=r"gate 'broken' of broken 1.5 .* broken_module:Gate: RuntimeError: no GPU here"
    ):
        registry.find("gate", "broken").load()
    with pytest.raises(UserError, match=r"'absent'.*ModuleNotFoundError"):
        registry.find("gate", "absent").load()
    with pytest.raises(UserError, match=r"'misspelt'.*AttributeError.*Plian"):
        registry.find("gate", "misspelt").load()
    assert registry.find("gate", "fixed").load().__name__ == "FixedGate"


@pytest.mark.parametrize("target", ["collections:OrderedDict", "math:pi", "vltok.tokenizers.budgets:RatioBudget"])
def test_a_plugin_of_another_kind(install, target) -> None:
    install("wrong", {"wrong": target})
    with pytest.raises(UserError, match=f"'wrong' of wrong 1.5 is {target}, which is no subclass of .*interfaces.Gate"):
        registry.find("gate", "wrong").load()


def test_a_name_that_two_distributions_claim(install) -> None:
    install("first", {"same": "first_module:Plain"}, WORKING)
    install("second", {"same": "second_module:Plain"}, WORKING)
    assert [component.name for component in registry.components("gate")].count("same") == 2
    with pytest.raises(UserError, match=r"gate 'same' is claimed by first 1.5 and second 1.5: uninstall one"):
        registry.find("gate", "same")
    assert registry.find("gate", "fixed").distribution == "vltok"


def test_a_built_in_name_that_a_plugin_claims(install) -> None:
    install("usurper", {"fixed": "usurper_module:Plain"}, WORKING)
    with pytest.raises(UserError, match=r"usurper 1\.5 and vltok"):
        registry.resolve_names({"gate": "fixed"})


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"no gate is called 'entropi'.*entropy.*did you mean 'entropy'\?"):
        registry.find("gate", "entropi")
    with pytest.raises(UserError, match=r"no kind of component is called 'gates'.*did you mean 'gate'\?"):
        registry.components("gates")


def test_names_in_a_recipe_become_class_paths() -> None:
    recipe = {
        "model": {
            "tokenizer": {
                "class_path": "dq-vae",
                "init_args": {
                    "gate": "fixed",
                    "encoder": {"class_path": "my.Encoder", "init_args": {"factors": [8, 16]}},
                    "budget": None,
                },
            }
        },
        "steps": 5,
        "callbacks": [{"class_path": "entropy"}],
    }
    resolved = registry.resolve_names(recipe)
    tokenizer = resolved["model"]["tokenizer"]
    assert tokenizer["class_path"] == "vltok.tokenizers.dqvae.DQVAE"
    assert tokenizer["init_args"]["gate"] == "vltok.tokenizers.gates.FixedGate"
    assert tokenizer["init_args"]["encoder"] == recipe["model"]["tokenizer"]["init_args"]["encoder"]
    assert tokenizer["init_args"]["budget"] is None
    dotted = registry.resolve_names({"model.tokenizer.gate": "fixed"})
    assert dotted == {"model.tokenizer.gate": tokenizer["init_args"]["gate"]}
    assert (resolved["steps"], resolved["callbacks"]) == (recipe["steps"], recipe["callbacks"])
    with pytest.raises(UserError, match="no gate is called 'fixd'"):
        registry.resolve_names({"gate": {"class_path": "fixd"}})


def test_every_built_in_component_has_a_kind_and_a_module() -> None:
    for kind in registry.KINDS:
        for component in registry.components(kind):
            assert component.distribution != "vltok" or component.target.startswith("vltok."), component
