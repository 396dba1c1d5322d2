import dataclasses
import itertools
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.sequences.batches import CodeLoader
from vltok.sequences.data import CodeData
from vltok.sequences.source import CodeSequences
from vltok.sequences.stored import stored_sequences

from .code_exports import export_codes, random_codes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codes")
    export_codes(path, random_codes(97), shard_size=10)
    return path


@pytest.fixture(scope="module")
def sequences(folder: Path) -> CodeSequences:
    return stored_sequences(folder)


def labels(batches) -> list[int]:
    return [int(label) for codes in batches for label in codes.labels]


def test_samples_are_read_in_the_order_asked_for(sequences: CodeSequences) -> None:
    codes = random_codes(97)
    chosen = torch.randperm(97)[:40]
    assert sequences[chosen.numpy()].equal(codes[chosen])


LIMITS = [{"batch_size": 4}, {"token_budget": 100}, {"batch_size": 200}, {"token_budget": 10**6}]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", LIMITS[:2])
def test_one_epoch_over_nodes_and_workers_sees_each_sample_once(
    sequences: CodeSequences, limit: dict, workers: int, world_size: int
) -> None:
    original = random_codes(97)
    loaders = [
        CodeLoader(sequences, **limit, rank=rank, world_size=world_size, workers=workers) for rank in range(world_size)
    ]
    seen = []
    for loader in loaders:
        batches = list(loader)
        assert len(batches) == len(loader) == len(loaders[0])
        for codes in batches:
            assert codes.equal(original[codes.labels])
        seen += labels(batches)
    assert sorted(seen) == list(range(97))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("window", [None, 1, 7, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 7])
def test_every_epoch_is_whole_within_its_limit_and_of_one_length(
    sequences: CodeSequences, limit: dict, window: int | None, world_size: int
) -> None:
    loaders = [
        CodeLoader(sequences, **limit, shuffle_window=window, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for epoch in range(4):
        plans = [loader.plan(epoch) for loader in loaders]
        assert {len(plan) for plan in plans} == {len(loaders[0])}
        batches = list(itertools.chain(*plans))
        assert sorted(itertools.chain(*(batch.tolist() for batch in batches))) == list(range(97))
        for batch in batches:
            assert 0 < len(batch) <= limit.get("batch_size", 97)
            assert sequences.lengths[batch].sum() <= limit.get("token_budget", 10**9)


def test_batches_of_a_token_budget_have_nearly_as_many_tokens(sequences: CodeSequences) -> None:
    longest = sequences.lengths.max()
    costs = [int(sequences.lengths[batch].sum()) for batch in CodeLoader(sequences, token_budget=200).plan(0)]
    assert max(costs) - min(costs) < 2 * longest
    assert sum(costs) / len(costs) > 200 - 2 * longest


def test_epochs_are_shuffled_differently_and_by_the_seed_alone(sequences: CodeSequences) -> None:
    loader = CodeLoader(sequences, batch_size=8)
    first, second = labels(loader), labels(loader)
    assert first != second and first != sorted(first)
    assert labels(CodeLoader(sequences, batch_size=8)) == first
    assert labels(CodeLoader(sequences, batch_size=8, seed=1)) != first
    assert labels(CodeLoader(sequences, batch_size=8, shuffle=False)) == list(range(97))


def test_a_window_keeps_reading_local(sequences: CodeSequences) -> None:
    order = labels(CodeLoader(sequences, batch_size=8, shuffle_window=10))
    shards = [[sample // 10 for sample in order[start : start + 10]] for start in range(0, 97, 10)]
    # shards hold ten samples but for the last, so that a window meets at most two of them
    assert all(len(set(window)) <= 2 for window in shards)
    assert order[:10] != sorted(order[:10])


@pytest.mark.parametrize(
    ("left", "workers"), [(0, 0), (1, 0), (9, 0), (9, 2), (12, 0), (13, 0), (13, 1), (14, 0), (20, 0)]
)
def test_an_epoch_is_taken_up_where_it_was_left(sequences: CodeSequences, left: int, workers: int) -> None:
    def loader() -> CodeLoader:
        return CodeLoader(sequences, batch_size=4, workers=workers, rank=1, world_size=2)

    whole = loader()
    assert len(whole) == 13
    expected = [labels([codes]) for _ in range(3) for codes in whole]
    begun = loader()
    seen = []
    for codes in itertools.islice(itertools.chain(begun, begun), left):
        seen.append(labels([codes]))
    resumed = loader()
    resumed.load_state_dict(begun.state_dict())
    seen += [labels([codes]) for codes in resumed]
    seen += [labels([codes]) for codes in resumed]
    assert seen == expected[: len(seen)]
    assert len(seen) == left + (13 - left % 13) + 13


def test_a_resumed_run_must_have_the_same_batches(sequences: CodeSequences) -> None:
    state = CodeLoader(sequences, batch_size=4).state_dict()
    for changes, message in (
        ({"batch_size": 5}, "batches"),
        ({"batch_size": 4, "seed": 3}, "seed"),
        ({"batch_size": 4, "world_size": 5}, "world_size"),
    ):
        with pytest.raises(UserError, match=message):
            CodeLoader(sequences, **changes).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either batch_size"),
        ({"batch_size": 2, "token_budget": 100}, "not both"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"token_budget": 46}, "token_budget must be at least 47"),
        ({"batch_size": 2, "world_size": 98}, "97 samples are too few for 98 processes"),
    ],
)
def test_limits_that_cannot_be_kept(sequences: CodeSequences, arguments: dict, message: str) -> None:
    assert sequences.lengths.max() == 24
    with pytest.raises(UserError, match=message):
        CodeLoader(sequences, **arguments)


def test_damaged_shards_are_noticed(tmp_path: Path) -> None:
    export_codes(tmp_path, random_codes(12))
    sequences = stored_sequences(tmp_path)
    path = tmp_path / "codes-000000.tar"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match="damaged"):
        sequences[torch.arange(3).numpy()]
    path.unlink()
    with pytest.raises(UserError, match=r"codes-000000\.tar has 0 bytes"):
        stored_sequences(tmp_path)


@pytest.mark.parametrize("codebook", [300, 40_000])
def test_parquet_shards_hold_the_same_sequences(codebook: int, tmp_path: Path) -> None:
    spec = CodeSpec(codebook, (8, 16))
    codes = random_codes(12, spec)
    for form in ("parquet", "webdataset"):
        export_codes(tmp_path / form, codes, spec=spec, format=form)
    in_memory, indexed = (stored_sequences(tmp_path / form) for form in ("parquet", "webdataset"))
    assert in_memory.lengths.tolist() == indexed.lengths.tolist()
    assert dataclasses.replace(in_memory.facts, place="") == dataclasses.replace(indexed.facts, place="")
    chosen = np.array([11, 0, 7, 7])
    assert in_memory[chosen].equal(indexed[chosen]) and in_memory[chosen].equal(codes[chosen])


class Recorder(pl.LightningModule):
    """Trains one number, and remembers which samples it met; it may break down in the middle of an epoch."""

    def __init__(self, breakdown: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = True
        self.weight = nn.Parameter(torch.zeros(()))
        self.breakdown = breakdown
        self.seen: list[list[int]] = []
        self.validated: list[int] = []

    def training_step(self, codes: Codes, _: int) -> torch.Tensor:
        if len(self.seen) == self.breakdown:
            raise KeyError("the machine is taken away")
        self.seen.append(codes.labels.tolist())
        return self.weight * codes.ids.float().mean()

    def validation_step(self, codes: Codes, _: int) -> None:
        self.validated += codes.labels.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Recorder, data: CodeData, folder: Path, **arguments) -> None:
    checkpoints = pl.callbacks.ModelCheckpoint(folder, save_last=True, every_n_train_steps=5)
    pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[checkpoints],
    ).fit(module, data, **arguments)


def test_lightning_resumes_in_the_middle_of_an_epoch(folder: Path, tmp_path: Path) -> None:
    def data() -> CodeData:
        return CodeData(str(folder), token_budget=200, workers=0)

    undisturbed = Recorder()
    fit(undisturbed, data(), tmp_path / "undisturbed")
    epoch = len(data().train_dataloader())
    assert len(undisturbed.seen) == 3 * epoch
    assert sorted(itertools.chain(*undisturbed.seen[:epoch])) == list(range(97))
    broken = Recorder(breakdown=epoch + 4)
    with pytest.raises(KeyError, match="taken away"):
        fit(broken, data(), tmp_path / "broken")
    done = (epoch + 4) // 5 * 5
    assert done > epoch and done % epoch
    resumed = Recorder()
    fit(resumed, data(), tmp_path / "broken", ckpt_path=str(tmp_path / "broken" / "last.ckpt"))
    assert broken.seen[:done] + resumed.seen == undisturbed.seen


def test_validation_codes_are_met_in_order(folder: Path, tmp_path: Path) -> None:
    export_codes(tmp_path / "validation", random_codes(11, seed=1))
    data = CodeData(str(folder), validation=str(tmp_path / "validation"), batch_size=30, workers=0)
    module = Recorder()
    fit(module, data, tmp_path)
    assert module.validated == 3 * list(range(11))
    assert data.training.facts.spec.regions == (2, 3)
    assert data.training.facts.classes[2] == "class 2"


def test_validation_codes_of_another_tokenizer_are_refused(folder: Path, tmp_path: Path) -> None:
    export_codes(tmp_path, random_codes(11), tokenizer="5" * 64)
    with pytest.raises(UserError, match="not of one tokenizer"):
        CodeData(str(folder), validation=str(tmp_path), batch_size=3).val_dataloader()
