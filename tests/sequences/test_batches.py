import itertools

import numpy as np
import pytest

from vltok.errors import UserError
from vltok.sequences.batches import CodeLoader
from vltok.sequences.source import CodeSequences
from vltok.sequences.stored import stored_sequences

from .code_exports import export_samples, mixed_samples, random_codes


def labels(batches) -> list[int]:
    return [int(label) for codes in batches for label in codes.labels]


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> CodeSequences:
    """97 sequences of three grids, of which one has a single sequence."""
    samples = mixed_samples(96, [(2, 3), (3, 2), (2, 3), (1, 2)])
    last = mixed_samples(97, [(3, 3)])[96:]
    folder = tmp_path_factory.mktemp("codes")
    export_samples(folder, [*samples, *last], shard_size=10)
    return stored_sequences(folder)


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


def whole_batches(
    sequences: CodeSequences, limit: dict, window: int | None, world_size: int, epoch: int
) -> list[np.ndarray]:
    """The batches of an epoch of all processes: as many of each, every sample once, none above its limit."""
    loaders = [
        CodeLoader(sequences, **limit, shuffle_window=window, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    plans = [loader.plan(epoch) for loader in loaders]
    assert {len(plan) for plan in plans} == {len(loaders[0])}
    batches = list(itertools.chain(*plans))
    assert sorted(itertools.chain(*(batch.tolist() for batch in batches))) == list(range(97))
    for batch in batches:
        assert 0 < len(batch) <= limit.get("batch_size", 97)
        assert sequences.lengths[batch].sum() <= limit.get("token_budget", 10**9)
    return batches


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("window", [None, 1, 7, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 7])
def test_every_epoch_is_whole_within_its_limit_and_of_one_length(
    sequences: CodeSequences, limit: dict, window: int | None, world_size: int
) -> None:
    for epoch in range(4):
        whole_batches(sequences, limit, window, world_size, epoch)


@pytest.mark.parametrize("limit", [*LIMITS, {"token_budget": 71}])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("world_size", [1, 2, 7])
def test_a_batch_has_one_grid_and_every_process_as_many(
    mixed: CodeSequences, limit: dict, window: int | None, world_size: int
) -> None:
    for epoch in range(3):
        for batch in whole_batches(mixed, limit, window, world_size, epoch):
            assert len(set(mixed.grid_numbers()[batch])) == 1


def test_an_epoch_of_several_grids_is_taken_up_where_it_was_left(mixed: CodeSequences) -> None:
    def loader() -> CodeLoader:
        return CodeLoader(mixed, token_budget=150, rank=1, world_size=2)

    whole = loader()
    expected = [labels([codes]) for _ in range(2) for codes in whole]
    begun = loader()
    seen = [labels([codes]) for codes in itertools.islice(begun, 3)]
    resumed = loader()
    resumed.load_state_dict(begun.state_dict())
    assert seen + [labels([codes]) for _ in range(2) for codes in resumed] == expected[: 2 * len(whole)]
    assert len({tuple(codes.grains.shape[1:]) for codes in loader()}) > 1
    assert labels(CodeLoader(mixed, batch_size=8, shuffle=False)) != labels(CodeLoader(mixed, batch_size=8))


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


@pytest.mark.parametrize(("before", "left", "now"), [(2, 5, 1), (2, 5, 3), (3, 4, 2)])
def test_other_processes_go_on_at_the_same_sequence(sequences: CodeSequences, before: int, left: int, now: int) -> None:
    def loaders(count: int) -> list[CodeLoader]:
        return [CodeLoader(sequences, batch_size=4, rank=rank, world_size=count) for rank in range(count)]

    begun = loaders(before)
    seen = [label for loader in begun for label in labels(itertools.islice(loader, left))]
    resumed, rest = loaders(now), []
    for loader in resumed:
        loader.load_state_dict(begun[0].state_dict())
        rest += labels(loader)
    # fewer than a batch of each process come twice
    assert {*seen, *rest} == set(range(97)) and len(seen) + len(rest) - 97 < 4 * now
    old = {"epoch": 0, "batch": left, "seed": 0, "world_size": before, "batches": before * len(begun[0])}
    resumed[0].load_state_dict(old)
    assert resumed[0].sampler.among_others == "goes on"


def test_a_resumed_run_must_have_the_same_batches(sequences: CodeSequences) -> None:
    state = CodeLoader(sequences, batch_size=4).state_dict()
    for changes, message in (
        ({"batch_size": 5}, "batches"),
        ({"batch_size": 4, "seed": 3}, "seed"),
        ({"batch_size": 4, "seed": 3, "world_size": 5}, "seed"),
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
