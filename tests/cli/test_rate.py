"""`vltok rate` as a user runs it."""

from pathlib import Path

import pytest

from vltok.cli.main import main
from vltok.pictures.photos import HELD_OUT, TRAINING

from .exports import write_bundle
from .runs import one_line

FEW = ["--data.size=16", "--data.train_crops=20", "--data.val_crops=6", "--data.batch_size=8", "--device=cpu"]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("bundle"))
    return "bundle"


def test_it_prints_the_curve(bundle: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["rate", bundle, "--data", "photos", *FEW, "--points", "3", "--out", "out"]) == 0
    said = capsys.readouterr()
    lines, photographs = said.out.splitlines(), len(TRAINING) + len(HELD_OUT)
    assert lines[0] == "calibrated on 20 pictures, for 25.0% to 100.0% of the most codes"
    assert lines[1].split()[:5] == ["asked", "for", "code", "length", "[codes]"] and lines[1].endswith(
        "PSNR [dB] ↑  SSIM ↑"
    )
    assert [line.split()[0] for line in lines[2:5]] == ["4.0", "10.0", "16.0"]
    assert lines[5].startswith("   own choice") and len(lines[5].split()) == 7
    assert lines[6].split()[:4] == ["jpeg", "5", "–", "–"]
    assert (
        f"means over photos ({photographs} pictures): 6 held-out pictures of 16 × 16" in lines
        and len({len(line) for line in lines[1:13]}) == 1
    )
    assert lines[-2] == "stored: bundle/rate.json, bundle/code_tables.safetensors, bundle/rate_curve.json"
    assert lines[-1] == "written: out/curve.json, out/curve.png, out/rate.html"
    assert [line.partition(":")[0] for line in said.err.splitlines()] == ["rate"]


def test_codecs_may_be_left_out(bundle: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["rate", bundle, *FEW, "--codecs", "false", "--points", "2"]) == 0
    said = capsys.readouterr().out
    assert "jpeg" not in said and "written" not in said


def test_what_is_wrong_is_one_line(bundle: str, capsys: pytest.CaptureFixture) -> None:
    def said(*arguments: str) -> str:
        assert main(["rate", *arguments]) in (1, 2)
        return one_line(capsys)

    assert "there is no bundle 'nowhere'" in said("nowhere", *FEW)
    assert "--points must be" in said(bundle, *FEW, "--points", "1")
    assert "--out 'bundle/config.yaml' is a file" in said(bundle, *FEW, "--out", "bundle/config.yaml")
    folder = ["--data=folder", "--data.root=.", "--device=cpu"]
    assert "--out 'out' lies in data.root '.', whose pictures" in said(bundle, *folder, "--out", "out")
    Path("bundle/rate.json").write_text("{}")
    assert "'bundle/rate.json' cannot be used" in said(bundle, *FEW)
