"""Compiled networks code as others do, and leave nothing behind."""

import contextlib
import logging
from pathlib import Path

import pytest
import torch

from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.nn.convolutions import packed_convolutions
from vltok.pictures.photos import Photos
from vltok.tokenizers.dqvae import DQVAE
from vltok.verbs.compiling import FEWEST_BATCHES, compiled
from vltok.verbs.detokenize import detokenize
from vltok.verbs.evaluate import evaluate
from vltok.verbs.reconstruct import reconstruct
from vltok.verbs.tokenize import tokenize


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(1, 3, 16, 16) * 2 - 1


@pytest.mark.usefixtures("unchecked")  # checks of shapes are slow to trace
def test_compiled_networks_paint_as_others_do_and_see_weights_that_change_afterwards(
    tokenizer: DQVAE, images: torch.Tensor
) -> None:
    codes = tokenizer.encode(images)
    pictures, expected = [], []
    for _ in range(2):
        with packed_convolutions(tokenizer), compiled(tokenizer, True, FEWEST_BATCHES, backend="eager"):
            pictures.append(tokenizer.decode(codes))
        assert "forward" not in vars(tokenizer.decoder)
        expected.append(tokenizer.decode(codes))
        with torch.no_grad():
            tokenizer.decoder.last_layer.zero_()
    torch.testing.assert_close(pictures, expected)
    assert not torch.equal(*pictures)


def test_few_batches_are_coded_as_they_are(tokenizer: DQVAE, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vltok"), compiled(tokenizer, True, FEWEST_BATCHES - 1):
        assert "forward" not in vars(tokenizer.encoder)
    assert caplog.messages == ["--compile: nothing is compiled for 99 batches, it pays from 100 on"]


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_compile_is_one_line(tokenizer: DQVAE, images: torch.Tensor) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        raise RuntimeError("no C++ compiler")

    works = compiled(tokenizer.eval(), True, FEWEST_BATCHES, backend=broken)
    with pytest.raises(UserError, match=r"--compile does not work here .*no C\+\+ compiler.*: leave it out"), works:
        tokenizer.encode(images)


def test_verbs_compile(tokenizer: DQVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def instead(model: Tokenizer, wanted: bool, batches: int) -> contextlib.nullcontext:
        asked.append(batches if wanted else 0)
        return contextlib.nullcontext()

    for verb in ("tokenize", "detokenize", "evaluate", "reconstruct"):
        monkeypatch.setattr(f"vltok.verbs.{verb}.compiled", instead)
    data = Photos(size=32, val_crops=10, batch_size=4, workers=0)
    codes = tokenize(tokenizer, data, tmp_path / "codes", split="val", compile=True)
    assert codes.manifest.settings.options["--compile"]
    detokenize(codes.folder, tmp_path / "pictures", tokenizer=tokenizer, compile=True)
    reconstruct(tokenizer, torch.zeros(3, 3, 32, 32), compile=True)
    evaluate(tokenizer, data, compile=True)
    evaluate(tokenizer, data)
    with pytest.raises(UserError, match="--compile is for a tokenizer's networks"):
        evaluate(data=data, codec="jpeg", quality=50, compile=True)
    assert asked == [2, 2, 3, 2, 0]
