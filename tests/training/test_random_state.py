"""Random numbers go on where they were, in each process with its own."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from vltok.training.random_state import RandomStates


def drawn() -> list[float]:
    return [torch.rand(()).item(), np.random.rand(), random.random()]


def test_all_generators_go_on_and_nothing_is_pickled(tmp_path: Path) -> None:
    drawn()
    random.gauss(0, 1)
    checkpoint: dict = {}
    RandomStates().save(checkpoint)
    torch.save(checkpoint, tmp_path / "state.pt")
    expected = [drawn(), random.gauss(0, 1)]
    torch.manual_seed(9)
    drawn()
    RandomStates().load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [drawn(), random.gauss(0, 1)] == expected


@pytest.mark.parametrize("within", [True, False])
def test_what_loaders_draw_at_the_start_counts_at_the_start_of_an_epoch_alone(within: bool) -> None:
    checkpoint: dict = {}
    RandomStates().save(checkpoint)
    first, second = drawn(), drawn()
    states = RandomStates()
    states.load(checkpoint)
    drawn()  # as a loader does that takes its seed from there
    states.start(within)
    assert drawn() == (first if within else second)


def _each(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    np.random.seed(rank)
    random.seed(rank)
    checkpoint: dict = {}
    states = RandomStates()
    states.save(checkpoint)
    expected = drawn()
    if rank == 0:
        torch.save(checkpoint, folder / "state.pt")
    distributed.barrier()
    states.load(torch.load(folder / "state.pt", weights_only=True))
    assert drawn() == expected
    (folder / f"drawn-{rank}").write_text(str(expected))
    distributed.destroy_process_group()


def test_each_process_gets_its_own_back(tmp_path: Path) -> None:
    multiprocessing.start_processes(_each, (tmp_path,), nprocs=2, start_method="fork")
    assert len({(tmp_path / f"drawn-{rank}").read_text() for rank in range(2)}) == 2
    states = RandomStates()
    states.load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert states.processes == 2 and str(drawn()) == (tmp_path / "drawn-0").read_text()


def test_a_process_that_was_not_there_goes_on_from_its_own_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint: dict = {}
    RandomStates().save(checkpoint)
    monkeypatch.setattr("vltok.training.random_state.world", lambda: (1, 2))
    torch.manual_seed(5)
    states = RandomStates()
    states.load(checkpoint)
    states.start(True)
    mine = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), mine)


def test_a_checkpoint_without_them_is_borne() -> None:
    RandomStates().load({})
