"""The registry, read from real distributions' metadata that a test puts on the path."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import vltok
from vltok import registry
from vltok.errors import UserError
from vltok.io.recipes import with_names
from vltok.version import __version__

from .distributions import installed


@pytest.fixture
def install(tmp_path: Path):
    """Install a distribution that declares gates, with one module of given source."""
    with contextlib.ExitStack() as stack:

        def install(name: str, entry_points: dict[str, str], source: str = "", requires: Sequence[str] = ()) -> None:
            stack.enter_context(installed(tmp_path, name, {"gate": entry_points}, source, requires))

        yield install


#: The type of what stands at the top of a recipe that holds a gate alone.
GATE = {"gate": registry.interface_of("gate")}
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
        "[registry.components(kind) for kind in registry.kinds()]; "
        "registry.path_of('gate', 'entropy'); "
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
    with pytest.raises(
        UserError,
        match=r"gate 'same' is claimed by first 1.5 and second 1.5: write which class is meant, first_module.Plain or "
        r"second_module.Plain, or uninstall one",
    ):
        registry.find("gate", "same")
    assert registry.find("gate", "same", ["second", "other"]).distribution == "second"
    with pytest.raises(UserError, match="claimed"):
        registry.find("gate", "same", ["first", "second"])
    assert registry.find("gate", "fixed").distribution == "vltok"


def test_a_built_in_name_that_a_plugin_claims(install) -> None:
    install("usurper", {"fixed": "usurper_module:Plain"}, WORKING)
    with pytest.raises(
        UserError, match=r"usurper 1\.5 and vltok .*usurper_module\.Plain or vltok\.tokenizers\.gates\.F"
    ):
        registry.path_of("gate", "fixed")
    for path in ("vltok.tokenizers.gates.FixedGate", "usurper_module.Plain"):
        tree = {"gate": {"class_path": path}}
        assert with_names(tree, GATE) == tree
    assert registry.path_of("gate", "entropy") == "vltok.tokenizers.gates.EntropyGate"


PARTIAL = """
from vltok.interfaces import Gate
class Partial(Gate):
    @property
    def ratios(self):
        return None
"""


def test_a_plugin_that_leaves_methods_undefined(install) -> None:
    install("partial", {"partial": "partial_module:Partial"}, PARTIAL)
    with pytest.raises(
        UserError,
        match=r"gate 'partial' of partial 1\.5 is partial_module:Partial, which leaves .*: forward, granularit",
    ):
        registry.find("gate", "partial").load()


@pytest.mark.parametrize(
    "requires",
    [
        [],
        ["torch"],
        ["vltok"],
        ["vltok>=0.0.1"],
        [f"vltok=={__version__}"],
        ["VLTok >=0.0.1,<1000"],
        ["vltok>=1000 ; extra == 'future'"],
        ["vltok>=1000; python_version < '3'"],
        ["vltok[parquet]>=0.0.1"],
        ["no requirement at all"],
    ],
)
def test_a_plugin_for_this_version(install, requires) -> None:
    install("fitting", {"plain": "fitting_module:Plain"}, WORKING, requires)
    assert registry.find("gate", "plain").load().__name__ == "Plain"
    assert registry.path_of("gate", "plain") == "fitting_module.Plain"


@pytest.mark.parametrize("requires", [["vltok>=1000"], ["vltok[parquet]>=1000", "torch"], ["vltok", "vltok>=1000"]])
def test_a_plugin_for_a_later_version_is_not_even_imported(install, requires) -> None:
    install("later", {"plain": "later_module:Plain"}, "raise RuntimeError('imported')", requires)
    expected = (
        rf"gate 'plain' of later 1\.5 is built for vltok>=1000, and this is vltok {__version__}: "
        r"pip install 'vltok>=1000', or install another version of later"
    )
    with pytest.raises(UserError, match=expected):
        registry.find("gate", "plain").load()
    with pytest.raises(UserError, match=expected):
        registry.path_of("gate", "plain")


def test_naming_a_broken_plugin_says_so_and_leaves_the_others_alone(install) -> None:
    install("broken", {"broken": "broken_module:FixedGate"}, "raise RuntimeError('two\\nlines')")
    with pytest.raises(UserError, match=r"^gate 'broken' of broken 1\.5 .*: RuntimeError: two lines$"):
        registry.path_of("gate", "broken")
    # the broken one's class has the same name
    tree = {"gate": {"class_path": "vltok.tokenizers.gates.FixedGate"}}
    assert with_names(tree, GATE) == {"gate": {"class_path": "fixed"}}


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"no gate is called 'entropi'.*entropy.*did you mean 'entropy'\?"):
        registry.find("gate", "entropi")
    with pytest.raises(UserError, match=r"no kind of component is called 'gates'.*did you mean 'gate'\?"):
        registry.components("gates")


KIND = """
class Shape: pass
class Round(Shape): pass
class Other: pass
"""


def test_a_plugin_brings_a_kind_of_its_own(tmp_path: Path) -> None:
    points = {"kinds": {"shape": "shapes_module:Shape"}, "shape": {"round": "shapes_module:Round"}}
    with installed(tmp_path, "shapes", points, KIND):
        assert registry.kinds()["shape"] == ("vltok.shape", "shapes_module:Shape")
        assert "shapes_module" not in sys.modules
        found = registry.find("shape", "round").load()
        assert registry.kind_of(found) == "shape" and registry.kind_of(registry.interface_of("shape")) == "shape"
        assert registry.registered("shapes_module.Round") is found
        assert [each.name for each in registry.registrations(found)] == ["round"]
        assert isinstance(vltok.build({"class_path": "round"}), found)
        with pytest.raises(UserError, match=r"no shape is called 'roundd'.*did you mean 'round'"):
            registry.find("shape", "roundd")
    assert "shape" not in registry.kinds() and registry.kind_of(found) is None


def test_a_kind_that_is_there_already_stays_what_it_is(tmp_path: Path) -> None:
    points = {"kinds": {"gate": "usurper_module:Other"}}
    warns = pytest.warns(UserWarning, match="'gate' of usurper is left out: vltok has one")
    with installed(tmp_path, "usurper", points, KIND), warns:
        assert registry.kinds()["gate"] == registry.KINDS["gate"]


def test_the_kind_of_a_class_is_that_of_its_interface() -> None:
    for kind in registry.KINDS:
        assert registry.kind_of(registry.interface_of(kind)) == kind
    assert registry.kind_of(registry.find("data", "folder").load()) == "data"
    assert registry.kind_of(dict) is None


def test_every_built_in_component_has_a_kind_and_a_module() -> None:
    for kind in registry.KINDS:
        for component in registry.components(kind):
            assert component.distribution != "vltok" or component.target.startswith("vltok."), component
