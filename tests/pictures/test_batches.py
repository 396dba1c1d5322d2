"""Places of crops, split between processes; and Lightning's view of a loader."""

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vltok.pictures import batches
from vltok.pictures.batches import Places
from vltok.pictures.images import ImageBatch
from vltok.pictures.photos import Photos


def of_each_process(processes: int, **arguments: object) -> list[list[tuple[int, int]]]:
    with pytest.MonkeyPatch.context() as patch:
        shares = []
        for rank in range(processes):
            patch.setattr(batches, "world", lambda rank=rank: (rank, processes))
            places = Places(**arguments)
            shares.append(list(places))
            assert len(places) == len(shares[-1])
    return shares


@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from(["drop", "pad"]), st.sampled_from([None, 0]))
def test_processes_get_as_many_places_each(count: int, processes: int, split: str, seed: int | None) -> None:
    shares = of_each_process(processes, count=count, split=split, seed=seed)
    assert len({len(share) for share in shares}) == 1
    indices = [index for share in shares for index, _ in share]
    if split == "pad":
        assert set(indices) == set(range(count))
        assert len(indices) - count < processes
    else:
        assert len(set(indices)) == len(indices)
        assert count - len(indices) < processes


def test_without_a_split_each_process_gets_all() -> None:
    assert of_each_process(2, count=3) == [[(0, 0), (1, 0), (2, 0)]] * 2


def test_order_changes_with_the_epoch() -> None:
    places = Places(20, seed=0)
    first = list(places)
    assert list(places) == first
    places.start(1)
    second = list(places)
    assert [index for index, _ in second] != [index for index, _ in first]
    assert sorted(second) == [(index, 1) for index in range(20)]


class Recorder(pl.LightningModule):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.automatic_optimization = False
        self.batches: list[ImageBatch] = []
        self.held_out: list[ImageBatch] = []

    def training_step(self, batch: ImageBatch, index: int) -> None:
        self.batches.append(batch)

    def validation_step(self, batch: ImageBatch, index: int) -> None:
        self.held_out.append(batch)

    def configure_optimizers(self) -> None:
        return None


def test_lightning_trains_on_it(tmp_path) -> None:
    data = Photos(size=16, batch_size=4, train_crops=12, val_crops=6)
    module = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=data)
    assert [len(batch) for batch in module.batches] == [4] * 6
    assert [len(batch) for batch in module.held_out] == [4, 2] * 2
    first, second = module.batches[:3], module.batches[3:]
    assert not any(torch.equal(one.images, other.images) for one in first for other in second)
    assert torch.equal(module.held_out[0].images, module.held_out[2].images)
