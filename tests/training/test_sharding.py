"""A prior in pieces on two processes is trained as one process trains it, and leaves what one process reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import distributed
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Prior
from vltok.io.bundles import load_prior, save_prior
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.sequence import SequencePrior
from vltok.training import ExponentialMovingAverage, PriorTraining, TokenizerTraining
from vltok.training.checkpoints import WholeCheckpoints
from vltok.training.sharding import FullySharded, check_sharding
from vltok.training.strategies import check_strategy

from ..tiny_priors import tiny_prior
from .conftest import TinyTokenizer

KINDS = {"dq-transformer": DQTransformer, "sequence": SequencePrior}
CLIPPED = 0.5
STEPS = 3


def training_of(kind: str) -> PriorTraining:
    torch.manual_seed(0)
    factors = (4,) if kind == "sequence" else (4, 8)
    prior = tiny_prior(KINDS[kind], 8, factors, (2, 2), layers=(1, 1), checkpointing=True)
    return PriorTraining(prior, learning_rate=1e-2, weight_decay=0.1)


def batches_of(kind: str) -> list[Codes]:
    """Two batches of four images for each step."""
    generator = torch.Generator().manual_seed(1)
    factors = (4,) if kind == "sequence" else (4, 8)
    spec, side = CodeSpec(8, factors, (2, 2)), factors[-1] // factors[0]
    found = []
    for _ in range(2 * STEPS):
        grains = torch.randint(len(factors), (4, 2, 2), generator=generator)
        ids = torch.randint(8, (4, 2 * side, 2 * side), generator=generator)
        found.append(Codes.from_code_map(ids, grains, spec))
    return found


def share_of(batch: Codes, rank: int | None) -> Codes:
    """One image, or three; all where there is one process."""
    return batch if rank is None else batch[[slice(0, 1), slice(1, 4)][rank]]


class Watch(Callback):
    """Keeps the clipped gradients of the first step, and saves after the second."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.gradients: dict[str, torch.Tensor] = {}
        self.pieces = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        batch = trainer.fit_loop.batch_idx
        if batch == 1:
            named = dict(module.named_parameters())
            self.pieces = sum(isinstance(each, DTensor) for each in named.values())
            self.gradients = {name: _whole(each.grad) for name, each in named.items() if each.grad is not None}
        if batch == 3 and self.path is not None:
            trainer.save_checkpoint(self.path)


def _whole(value: torch.Tensor) -> torch.Tensor:
    return (value.full_tensor() if isinstance(value, DTensor) else value).clone()


def train(kind: str, rank: int | None, save: Path | None = None, resumed: Path | None = None) -> dict[str, Any]:
    training, watch = training_of(kind), Watch(save)
    trainer = Trainer(
        accelerator="cpu",
        devices=1 if rank is None else 2,
        strategy="auto" if rank is None else FullySharded(),
        max_steps=STEPS,
        accumulate_grad_batches=2,
        gradient_clip_val=CLIPPED,
        callbacks=[watch],
        plugins=[WholeCheckpoints()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    batches = [share_of(batch, rank) for batch in batches_of(kind)]
    if resumed is not None:  # a plain list does not know where it was left
        batches = batches[4:] + batches[:4]
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(training, loader, ckpt_path=resumed, weights_only=True)
    (logged,) = trainer.validate(
        training, DataLoader([share_of(batches_of(kind)[0], rank)], batch_size=None), verbose=False
    )
    assert not any(isinstance(each, DTensor) for each in training.prior.parameters())
    return {
        "gradients": watch.gradients,
        "pieces": watch.pieces,
        "state": training.prior.state_dict(),
        "logged": torch.tensor(logged["val_loss"]),
        "prior": training.prior,
    }


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0")
    os.environ.update(TORCHELASTIC_RUN_ID="sharded", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    found: dict[str, Any] = {}
    for kind in KINDS:
        found[kind] = train(kind, rank, folder / f"{kind}.ckpt")
        prior = found[kind].pop("prior")
        if rank == 0:
            save_prior(prior, folder / kind, "0" * 64)
    found["resumed"] = train("dq-transformer", rank, resumed=folder / "one.ckpt")
    del found["resumed"]["prior"]
    distributed.destroy_process_group()
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    found = {kind: train(kind, None, folder / f"{kind}.ckpt") for kind in KINDS}
    return {**found, "folder": folder}


@pytest.fixture(scope="module")
def sharded(alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "one.ckpt").write_bytes((alone["folder"] / "dq-transformer.ckpt").read_bytes())
    torch.multiprocessing.start_processes(one_of_two, (folder,), nprocs=2, start_method="fork")
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2))
    for kind in KINDS:
        torch.testing.assert_close(first[kind]["state"], second[kind]["state"], rtol=0, atol=0)
    return {**first, "folder": folder}


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_pieces_train_as_one_with_all(alone: dict, sharded: dict, kind: str) -> None:
    whole, pieces = alone[kind], sharded[kind]
    assert pieces["pieces"] == len(whole["gradients"]) and whole["pieces"] == 0
    # accumulated over two batches, with recomputed blocks, and clipped by the norm of all
    norm = torch.stack([each.norm() for each in whole["gradients"].values()]).norm()
    assert norm == pytest.approx(CLIPPED, rel=1e-3)
    close(pieces["gradients"], whole["gradients"])
    close(pieces["state"], whole["state"])
    close(pieces["logged"], whole["logged"])


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_are_those_of_one_process_and_go_on_there(alone: dict, sharded: dict) -> None:
    mine, theirs = (
        torch.load(found["folder"] / "dq-transformer.ckpt", weights_only=True) for found in (alone, sharded)
    )
    close(theirs["state_dict"], mine["state_dict"])
    (own,), (other,) = mine["optimizer_states"], theirs["optimizer_states"]
    assert own["state"].keys() == other["state"].keys() and own["param_groups"] == other["param_groups"]
    close(
        [list(each.values()) for each in other["state"].values()],
        [list(each.values()) for each in own["state"].values()],
    )
    close(
        train("dq-transformer", None, resumed=sharded["folder"] / "dq-transformer.ckpt")["state"],
        alone["dq-transformer"]["state"],
    )
    close(sharded["resumed"]["state"], alone["dq-transformer"]["state"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundle_is_whole(alone: dict, sharded: dict, kind: str) -> None:
    prior, batch = load_prior(sharded["folder"] / kind), batches_of(kind)[0]
    expected: Prior = alone[kind]["prior"].eval()
    with torch.no_grad():
        close(prior.loss(batch).total, expected.loss(batch).total)


def test_what_cannot_be_taken_apart_is_refused() -> None:
    prior, tokenizer = training_of("dq-transformer"), TokenizerTraining(TinyTokenizer())
    check_sharding(prior, "bf16-mixed", [])
    check_strategy(FullySharded())
    with pytest.raises(UserError, match="is for priors"):
        check_sharding(tokenizer, "32-true", [])
    with pytest.raises(UserError, match=r"give trainer\.precision bf16-mixed or 32-true"):
        check_sharding(prior, "16-mixed", [])
    with pytest.raises(UserError, match="ExponentialMovingAverage averages whole weights"):
        check_sharding(prior, "32-true", [ExponentialMovingAverage()])
