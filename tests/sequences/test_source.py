"""Codes that are not from `vltok tokenize` train a prior, too."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vltok.cli.main import main
from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.sequences.batches import CodeLoader
from vltok.sequences.source import CodeSource, SequenceFacts, SequencesInMemory
from vltok.testing import CodeDataContract

from .code_exports import export_codes, random_codes

SPEC = CodeSpec(300, (8, 16), regions=(2, 3))
PRIOR = """
seed_everything: 0
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: dq-transformer
      init_args:
        {codebook_size: 300, factors: [8, 16], regions: [2, 3], width: 8, heads: 2, position_layers: 1,
        content_layers: 1}
trainer: {accelerator: cpu, max_steps: 1}
data: """


class MadeUpCodes(CodeSource):
    """A source of codes as somebody else may write one."""

    def __init__(self, count: int = 12) -> None:
        super().__init__()
        facts = SequenceFacts("nowhere", SPEC, tokenizer="0" * 64)
        self._training, self._held_out = (SequencesInMemory(random_codes(count, seed=seed), facts) for seed in (0, 1))

    @property
    def training(self) -> SequencesInMemory:
        return self._training

    @property
    def held_out(self) -> SequencesInMemory:
        return self._held_out

    def train_dataloader(self) -> CodeLoader:
        return CodeLoader(self._training, batch_size=4)

    def val_dataloader(self) -> CodeLoader:
        return CodeLoader(self._held_out, batch_size=4, shuffle=False)


class TestMadeUpCodes(CodeDataContract):
    def build(self) -> MadeUpCodes:
        return MadeUpCodes()


@pytest.mark.parametrize("source", ["somebody else's", "parquet"])
def test_a_prior_is_trained_on_codes_of(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("train", 0), ("val", 1)):
        export_codes(tmp_path / name, random_codes(12, seed=seed), format="parquet")
    data = {
        "somebody else's": "{class_path: tests.sequences.test_source.MadeUpCodes}",
        "parquet": "{class_path: codes, init_args: {root: train, validation: val, batch_size: 4, workers: 0}}",
    }
    (tmp_path / "prior.yaml").write_text(PRIOR + data[source])
    assert main(["fit", "--config", "prior.yaml", "--out", "run"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    counted = {"training": 12, "unseen": 12}
    place = {"somebody else's": "nowhere", "parquet": "train"}[source]
    assert metrics["protocol"]["sequences"] == {**counted, "place": place}
    assert metrics["values"]["unigram_per_code"]["value"] > 0 and metrics["protocol"]["tokenizer"] == "0" * 64
    assert (tmp_path / "run" / "bundle" / "config.yaml").is_file()


def test_sequences_in_memory_are_what_is_said_of_them() -> None:
    codes = random_codes(5)
    facts = SequenceFacts("nowhere", SPEC, tokenizer="", labelled=True)
    assert SequencesInMemory(codes, facts)[np.array([4, 1])].equal(codes[[4, 1]])
    with pytest.raises(UserError, match="nowhere is said to have labels"):
        SequencesInMemory(Codes(codes.ids, codes.lengths, codes.grains), facts)
    with pytest.raises(UserError, match="outside a codebook of 300"):
        SequencesInMemory(Codes(torch.full_like(codes.ids, 300), codes.lengths, codes.grains), facts)
