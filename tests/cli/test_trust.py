"""Every verb that loads a bundle refuses what needs the user's word, and takes it with --trust."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from vltok.cli.main import main
from vltok.io.bundles import fingerprint

from .exports import write_pictures

OLD = Path(__file__).parents[1] / "io" / "bundles_0_1_0"
MODULE = """
from vltok.priors.dq_transformer import DQTransformer
from vltok.tokenizers.dqvae import DQVAE
class Tokens(DQVAE): pass
class Draws(DQTransformer): pass
"""
DATA = ["--data=folder", "--data.root=pictures", "--data.size=16", "--data.workers=0", "--data.val_share=0.4"]
FIT = """
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: dq-transformer
      init_args: {codebook_size: 8, factors: [4, 8], regions: [2, 2], width: 4, heads: 1, position_layers: 1,
                  content_layers: 1}
data: {class_path: codes, init_args: {root: codes, batch_size: 4, workers: 0}}
trainer: {accelerator: cpu, max_steps: 1, logger: false}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and a prior of classes that are not registered, pictures and codes."""
    folder = tmp_path_factory.mktemp("project")
    write_pictures(folder / "pictures", 12)
    (folder / "own_classes.py").write_text(MODULE)
    for kind, path in {"tokenizer": "own_classes.Tokens", "prior": "own_classes.Draws"}.items():
        shutil.copytree(OLD / kind, folder / kind)
        content = yaml.safe_load((folder / kind / "config.yaml").read_text())
        content[kind]["class_path"] = path
        if kind == "prior":
            content["tokenizer"]["fingerprint"] = fingerprint(folder / "tokenizer")
        (folder / kind / "config.yaml").write_text(yaml.safe_dump(content))
    (folder / "fit.yaml").write_text(FIT)
    return folder


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    yield
    sys.modules.pop("own_classes", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokenize", "--tokenizer", "tokenizer", *DATA, "--out", "codes"],
        ["detokenize", "codes", "--tokenizer", "tokenizer", "--out", "decoded"],
        ["reconstruct", "pictures/cat", "--tokenizer", "tokenizer", "--out", "reconstructed"],
        ["evaluate", "--tokenizer", "tokenizer", *DATA, "--out", "evaluated"],
        ["evaluate", "--prior", "prior", "--count", "4", *DATA, "--out", "evaluated_prior"],
        ["sample", "--prior", "prior", "--count", "2", "--out", "samples"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_verb_takes_the_users_word(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "own_classes." in said and "--trust on the command line" in said
    assert "own_classes" not in sys.modules
    assert main([*arguments, "--device", "cpu", "--trust"]) == 0, capsys.readouterr().err
    kept = Path(arguments[-1], "config.yaml")
    assert not kept.exists() or "trust" not in kept.read_text(), "a file that is handed on gives nobody's word"


def test_fit_keeps_a_prior_whose_tokenizer_needs_it(capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("codes").exists():
        assert main(["tokenize", "--tokenizer", "tokenizer", *DATA, "--out", "codes", "--device=cpu", "--trust"]) == 0
    assert main(["fit", "--config", "fit.yaml", "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "no pictures were drawn" in said and "own_classes.Tokens" in said and "--trust" in said
    assert Path("run/bundle/config.yaml").is_file() and not Path("run/samples.png").exists()
    assert main(["fit", "--config", "fit.yaml", "--out", "run", "--overwrite", "--trust"]) == 0
    assert Path("run/samples.png").is_file()
    assert "trust" not in Path("run/config.yaml").read_text()
