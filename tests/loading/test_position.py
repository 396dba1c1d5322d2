"""A loader goes on in the middle of an epoch where another left it, batch for batch."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from vltok.errors import UserError
from vltok.loading.position import Position
from vltok.pictures import folder as folder_module
from vltok.pictures import shards as shards_module
from vltok.pictures import streams as streams_module
from vltok.pictures.batches import Loader
from vltok.pictures.folder import Folder
from vltok.pictures.photos import Photos
from vltok.pictures.shards import WebDataset

Build = Callable[[], Loader]

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than cores
    pytest.mark.filterwarnings("ignore:skipped the corrupt picture"),
]


def contents(batches) -> list[tuple]:
    return [(batch.keys, batch.images.sum(dim=(1, 2, 3)).tolist()) for batch in batches]


def check_that_it_goes_on(build: Build, places: range) -> None:
    """Leave an epoch at each place, with batches that are prepared and not taken, and go on in another loader."""
    whole = build()
    first, second = contents(whole), contents(whole)
    assert len(first) == len(whole) > places[-1] and first != second
    for place in places:
        left = build()
        batches = iter(left)
        begun = contents(itertools.islice(batches, place))
        state = left.state_dict()
        del batches
        resumed = build()
        resumed.load_state_dict(state)
        assert begun + contents(resumed) == first
        assert contents(resumed) == second


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_of_photographs(workers: int) -> None:
    places = range(0, 5, 1 + workers)
    check_that_it_goes_on(
        lambda: Photos(size=8, batch_size=4, train_crops=22, workers=workers).train_dataloader(), places
    )


def test_a_folder_with_a_corrupt_picture(tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(each=8)
    next(root.rglob("*.jpg")).write_bytes(b"no picture")

    def build() -> Loader:
        return Folder(str(root), size=8, batch_size=4, workers=0, max_corrupt=0.5).train_dataloader()

    check_that_it_goes_on(build, range(5))
    read = []
    decode = folder_module.decode
    monkeypatch.setattr(folder_module, "decode", lambda *which: read.append(which) or decode(*which))
    resumed = build()
    resumed.load_state_dict(resumed.state_dict() | {"batch": 4})
    assert len(list(resumed)) == len(resumed) - 4
    assert 4 <= len(read) <= 5  # what was taken before is not decoded again


@pytest.mark.parametrize(("shards", "workers"), [((24,), 0), ((24,), 3), ((9, 5, 10), 0), ((9, 5, 10), 2)])
def test_shards_with_corrupt_pictures(write: Callable[..., str], shards: tuple[int, ...], workers: int) -> None:
    pattern = write(*shards, change=lambda i, files: files | {"jpg": b""} if i in (3, 4, 12) else files)
    held_out = write(2, name="val")

    def build() -> Loader:
        options = {"size": 8, "batch_size": 3, "shuffle_buffer": 5, "max_corrupt": 0.3}
        return WebDataset(pattern, val_shards=held_out, workers=workers, **options).train_dataloader()

    check_that_it_goes_on(build, range(3, 8, 2) if workers else range(8))


@pytest.mark.parametrize("shards", [(24,), (6, 6, 6, 6)])
def test_shards_on_two_processes(
    write: Callable[..., str], shards: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern, held_out = write(*shards), write(2, name="val")
    for rank in range(2):
        monkeypatch.setattr(shards_module, "world", lambda rank=rank: (rank, 2))

        def build() -> Loader:
            options = {"size": 8, "batch_size": 2, "shuffle_buffer": 5}
            return WebDataset(pattern, val_shards=held_out, workers=2, **options).train_dataloader()

        check_that_it_goes_on(build, range(1, 6, 3))


def test_samples_that_were_taken_are_not_decoded_again(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = WebDataset(write(12), val_shards=write(1, name="val"), size=8, batch_size=3, workers=0, shuffle_buffer=4)
    read = []
    decode = streams_module.decode
    monkeypatch.setattr(streams_module, "decode", lambda *which: read.append(which) or decode(*which))
    resumed = data.train_dataloader()
    resumed.load_state_dict(resumed.state_dict() | {"batch": 3})
    assert len(list(resumed)) == 1 and len(read) == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 3}, "data.batch_size 2, this one has 3"),
        ({"seed": 1}, "data.seed 0, this one has 1"),
        ({"train_crops": 21}, "training crops 20, this one has 21"),
    ],
)
def test_other_batches_are_refused(changes: dict, named: str) -> None:
    arguments = {"size": 8, "batch_size": 2, "train_crops": 20}
    state = Photos(**arguments).train_dataloader().state_dict()
    with pytest.raises(UserError, match=named):
        Photos(**arguments | changes).train_dataloader().load_state_dict(state)


def test_other_workers_are_refused_where_the_order_follows_from_them(write: Callable[..., str]) -> None:
    def loader(workers: int) -> Loader:
        return WebDataset(write(12), size=8, batch_size=3, workers=workers).train_dataloader()

    with pytest.raises(UserError, match=r"data\.workers 2, this one has 1"):
        loader(1).load_state_dict(loader(2).state_dict())


def crops_of(rank: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> Loader:
    monkeypatch.setattr("vltok.pictures.batches.world", lambda: (rank, processes))
    return Photos(size=8, batch_size=2, train_crops=48, workers=0).train_dataloader()


@pytest.mark.parametrize(
    ("before", "taken", "now", "again"),
    [(2, 5, 1, 0), (2, 5, 3, 2), (1, 7, 2, 2), (3, 3, 2, 2), (2, 12, 1, 0), (1, 24, 3, 0), (4, 6, 1, 0)],
)
def test_other_processes_go_on_at_the_same_image(
    before: int, taken: int, now: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or less than a batch of each before it."""
    seen: list[str] = []
    for rank in range(before):
        left = crops_of(rank, before, monkeypatch)
        seen += [key for batch in itertools.islice(left, taken) for key in batch.keys]
        state = left.state_dict()
    rest: list[str] = []
    for rank in range(now):
        resumed = crops_of(rank, now, monkeypatch)
        resumed.load_state_dict(state)
        resumed.sampler.set_epoch(0)
        if len(seen) < 48:
            rest += [key for batch in resumed for key in batch.keys]
        else:
            assert resumed.state_dict()["batch"] == len(resumed)
    every = sorted(key for batch in crops_of(0, 1, monkeypatch) for key in batch.keys)
    assert sorted({*seen, *rest}) == every and len(seen) + len(rest) == len(every) + again


def test_an_epoch_of_shards_starts_again_among_other_processes(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern, held_out = write(24), write(2, name="val")

    def build() -> Loader:
        return WebDataset(pattern, val_shards=held_out, size=8, batch_size=2, workers=0).train_dataloader()

    whole = build()
    list(itertools.islice(whole, 3))
    state = whole.state_dict()
    monkeypatch.setattr(shards_module, "world", lambda: (0, 2))
    monkeypatch.setattr("vltok.pictures.batches.world", lambda: (0, 2))
    resumed = build()
    resumed.load_state_dict(state)
    assert resumed.sampler.among_others == "starts again" and len(list(resumed)) == len(resumed) == 6


def test_a_step_of_accumulated_batches_begins_anew_among_other_processes() -> None:
    state = {"epoch": 0, "batch": 7, "processes": 2, "batches in an epoch": 10}
    position = Position(20, {}, 1, lambda taken, before, batches: taken * before)
    position.load_state_dict(state)
    assert position.align(4) == 12 and position.start() == 12
    position.load_state_dict({**state, "batch": 10})
    assert position.align(3) == 20


def test_the_end_of_an_epoch_is_stored_as_that() -> None:
    position = Position(5, {})
    for _ in range(5):
        position.take()
    state = position.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 5)
    position.load_state_dict(state)
    position.set_epoch(0)
    assert position.state_dict() == state  # as where only a validation is left of the epoch
    assert (position.start(), position.epoch) == (0, 1)  # a plain loop goes on with the next


def test_a_position_holds_for_its_epoch_alone() -> None:
    position = Position(5, {})
    position.load_state_dict({"epoch": 2, "batch": 3})
    position.set_epoch(2)
    assert position.start() == 3
    assert position.start() == 0  # another pass over the same epoch
    position.load_state_dict({"epoch": 2, "batch": 3})
    position.set_epoch(3)
    assert (position.epoch, position.start()) == (3, 0)
