"""What `vltok info` tells of a bundle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vltok
from tests.cli.exports import PRIOR, write_bundle, write_prior
from vltok.cli.main import main
from vltok.errors import UserError
from vltok.io.bundles import fingerprint
from vltok.rates import RateCalibration

OLD = Path(__file__).parents[1] / "io" / "bundles_0_1_0"


def test_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = write_bundle(tmp_path / "tokenizer")
    vltok.save_tokenizer(tokenizer, tmp_path / "tokenizer", metrics={"length": 12.5}, provenance={"by": "a test"})
    found = vltok.info(tmp_path / "tokenizer")
    assert (found.kind, found.component, found.codes) == ("tokenizer", "dq-vae", tokenizer.spec)
    assert found.parameters == sum(each.numel() for each in tokenizer.parameters())
    assert found.bytes == (tmp_path / "tokenizer" / "model.safetensors").stat().st_size
    assert found.ratios == {4: 0.5, 8: 0.5} and found.figures == {"length": 12.5}
    assert found.provenance == {"by": "a test"} and found.vltok == found.requires["vltok"] == vltok.__version__
    assert found.fingerprint == fingerprint(tmp_path / "tokenizer") and found.config["class_path"] == "dq-vae"


def test_what_its_rates_were_calibrated_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_bundle(tmp_path / "bundle")
    assert vltok.info(tmp_path / "bundle").calibrated is None
    calibration = RateCalibration((1.0, 0.0), (0.25, 1.0), 12, "photos\x1b[1m")
    (tmp_path / "bundle" / "rate.json").write_text(calibration.text(fingerprint(tmp_path / "bundle")))
    assert main(["info", str(tmp_path / "bundle")]) == 0
    said = capsys.readouterr().out
    assert "  calibrated     on 12 pictures (photos" in said and "\x1b" not in said


def test_a_prior(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = {**PRIOR, "init_args": {**PRIOR["init_args"], "classes": 2}}
    write_prior(tmp_path / "prior", config, "0" * 64, ["cat", "dog\x1b[1m"])
    found = vltok.info(tmp_path / "prior")
    assert (found.kind, found.tokenizer, found.tokenizer_places) == ("prior", "0" * 64, ("../tokenizer",))
    assert (found.classes, found.codes.regions) == (2, (2, 2)) and found.class_names[0] == "cat"
    assert main(["info", str(tmp_path / "prior")]) == 0
    said = capsys.readouterr().out
    assert "2: cat, dog" in said and "\x1b" not in said and "2 × 2" in said
    assert main(["info", str(tmp_path / "prior"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["codes"]["factors"] == [8, 4]


@pytest.mark.parametrize("kind", ["tokenizer", "prior"])
def test_bundles_of_version_0_1_0_are_built_to_be_counted(kind: str) -> None:
    found = vltok.info(OLD / kind)
    assert (found.kind, found.vltok, found.codes.codebook_size) == (kind, "0.1.0", 8) and found.parameters > 0


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    code = "import sys; from vltok.verbs.info import info; info(sys.argv[1]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "bundle")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_is_no_whole_bundle_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    write_bundle(run / "bundle")
    (run / "config.yaml").write_text("model: {}\n")
    for name, old, new in [
        ("weights", b"\0", b"\1"),
        ("summary", b"parameters:", b"paramEters:"),
        ("figures", b"figures: {}", b"figures: []"),
    ]:
        copy = shutil.copytree(run / "bundle", tmp_path / name)
        file = copy / ("model.safetensors" if name == "weights" else "config.yaml")
        file.write_bytes(file.read_bytes().replace(old, new))
    (tmp_path / "empty").mkdir()
    for name, message in {
        "run": f"did you mean '{run / 'bundle'}'?",
        "weights": "its hash is not the one in config.yaml",
        "summary": "is damaged: summary does not tell parameters and codes",
        "figures": "is damaged: figures must hold keys and values",
        "empty": "is no bundle: it has no config.yaml",
        "nowhere": "no such folder",
    }.items():
        assert main(["info", str(tmp_path / name)]) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1 and "unexpected" not in said
    with pytest.raises(UserError, match="did you mean"):
        vltok.info(run)
