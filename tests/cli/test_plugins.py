"""The list of components, and the arguments of one."""

import json
from pathlib import Path

import pytest

from vltok.cli.main import main
from vltok.registry import components, kinds


@pytest.fixture
def broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution of which one component cannot be imported, and another is no gate."""
    information = tmp_path / "outsider-2.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 2.5\n")
    (information / "entry_points.txt").write_text(
        "[vltok.gates]\nmissing = outsider.nowhere:Gate\nwrong = collections:OrderedDict\n"
        "[vltok.budgets]\nratio = outsider.budgets:Ratio\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def _listed(capsys: pytest.CaptureFixture, *arguments: str) -> list[dict]:
    assert main(["plugins", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_component_is_listed_and_loads(capsys: pytest.CaptureFixture) -> None:
    entries = _listed(capsys)
    assert {(entry["kind"], entry["name"]) for entry in entries} == {
        (component.kind, component.name) for kind in kinds() for component in components(kind)
    }
    for entry in entries:
        if entry["distribution"] == "vltok":
            assert entry["error"] is None, entry
            assert entry["summary"], entry


def test_a_broken_component_is_shown_and_harms_no_other(broken_plugin, capsys: pytest.CaptureFixture) -> None:
    entries = {entry["name"]: entry for entry in _listed(capsys, "gate")}
    assert "No module named 'outsider'" in entries["missing"]["error"]
    assert "no subclass of vltok.interfaces.Gate" in entries["wrong"]["error"]
    assert entries["entropy"]["error"] is None
    assert (entries["missing"]["distribution"], entries["missing"]["version"]) == ("outsider", "2.5")


def test_a_name_that_two_distributions_claim_is_said(broken_plugin, capsys: pytest.CaptureFixture) -> None:
    errors = {entry["distribution"]: entry["error"] for entry in _listed(capsys, "budget", "ratio")}
    assert "outsider 2.5" in errors["vltok"] and "vltok" in errors["outsider"]


def test_arguments_have_types_defaults_and_descriptions(capsys: pytest.CaptureFixture) -> None:
    (entry,) = _listed(capsys, "gate", "entropy")
    arguments = {argument["name"]: argument for argument in entry["arguments"]}
    assert arguments["ratios"]["type"] == "dict[int, float]" and arguments["ratios"]["default"] is None
    assert arguments["thresholds"]["default"] == "None"
    assert all(argument["description"] for argument in arguments.values())


def test_every_argument_of_every_component_is_documented(capsys: pytest.CaptureFixture) -> None:
    for name in sorted({component.name for kind in kinds() for component in components(kind)}):
        for entry in _listed(capsys, name):
            bare = [argument["name"] for argument in entry["arguments"] if not argument["description"]]
            assert not bare, f"{entry['target']} says nothing of {bare}"


def test_a_name_of_several_kinds_shows_all(capsys: pytest.CaptureFixture) -> None:
    assert {entry["kind"] for entry in _listed(capsys, "vqgan")} == {"encoder", "decoder"}
    assert [entry["kind"] for entry in _listed(capsys, "decoder/vqgan")] == ["decoder"]
    assert [entry["kind"] for entry in _listed(capsys, "decoder", "vqgan")] == ["decoder"]


def test_piped_text_is_not_cut(capsys: pytest.CaptureFixture) -> None:
    assert main(["plugins", "gate"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("entropy ")]
    assert "vltok.tokenizers.gates.EntropyGate" in line and line.endswith("(the original authors' later version).")


def test_a_component_in_text(capsys: pytest.CaptureFixture) -> None:
    assert main(["plugins", "ema-vq"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("quantizer ema-vq: vltok.tokenizers.quantizers.EMAVectorQuantizer of vltok")
    assert any(line.split()[:3] == ["decay", "float", "0.99"] for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["entrpy"], "did you mean 'entropy'?"),
        (["gate", "vqgan"], "no gate is called 'vqgan'"),
        (["gat", "entropy"], "did you mean 'gate'?"),
        (["gate", "entropy", "more"], "takes a kind and a name"),
    ],
)
def test_a_wrong_name_is_one_line(capsys: pytest.CaptureFixture, arguments: list[str], message: str) -> None:
    assert main(["plugins", *arguments]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and message in shown
