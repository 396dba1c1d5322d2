"""Every verb computes in the arithmetic in which `evaluate` measures."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vltok.cli.main import main
from vltok.io.bundles import fingerprint, load_tokenizer
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder

from .exports import PRIOR, write_bundle, write_pictures, write_prior

DATA = ["--data=folder", "--data.root=pictures", "--data.size=16", "--data.workers=0"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_bundle(folder / "tokenizer")
    write_prior(folder / "prior", PRIOR, fingerprint(folder / "tokenizer"))
    write_pictures(folder / "pictures", 3)
    return folder


def is_full() -> bool:
    return not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Whether float32 was full wherever a tokenizer was called, although it is not outside."""
    seen: list[tuple[str, bool]] = []

    def watched(owner: type, name: str) -> Callable:
        method = getattr(owner, name)

        def watch(self, given):
            seen.append((name, is_full()))
            return method(self, given)

        return watch

    for name in ("encode", "decode"):
        monkeypatch.setattr(DQVAE, name, watched(DQVAE, name))
    assert not is_full()
    return seen


def test_every_verb_computes_float32_in_full(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[str, bool]]
) -> None:
    monkeypatch.chdir(project)
    common = ["--tokenizer", "tokenizer", "--device=cpu"]
    for verb, arguments, called in (
        ("tokenize", [*common, *DATA], {"encode"}),
        ("detokenize", [str(tmp_path / "tokenize"), *common], {"decode"}),
        ("sample", ["--prior", "prior", "--count=1", "--device=cpu"], {"decode"}),
        ("reconstruct", ["pictures", *common], {"encode", "decode"}),
        ("evaluate", [*common, *DATA, "--split=all"], {"encode", "decode"}),
    ):
        seen.clear()
        assert main([verb, *arguments, "--out", str(tmp_path / verb)]) == 0
        assert {name for name, _ in seen} == called
        assert all(full for _, full in seen), verb
    assert not is_full()


def test_so_does_a_tokenizer_in_python(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    forward = PatchEncoder.forward
    monkeypatch.setattr(PatchEncoder, "forward", lambda self, images: seen.append(is_full()) or forward(self, images))
    load_tokenizer(project / "tokenizer").encode(torch.zeros(1, 3, 16, 16))
    assert seen == [True]
