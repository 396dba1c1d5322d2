"""Distances between sets of images, against second implementations on the same features."""

import json
import math
import multiprocessing

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import distributed
from torch.nn.functional import softmax

from vltok.errors import UserError
from vltok.evaluation.distances import SetDistances, precision_recall
from vltok.evaluation.features import Features
from vltok.evaluation.gathering import Seen
from vltok.evaluation.values import Value


@pytest.fixture(scope="module")
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(300, 12, generator=generator)
    return real, 1.3 * torch.randn(260, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 0.4


@pytest.fixture(scope="module")
def found(sets):
    distances = SetDistances()
    logits = torch.randn(260, 5, generator=torch.Generator().manual_seed(4))
    for part in sets[0].split(64):
        distances.update(Features(part, None), real=True)
    for part, scores in zip(sets[1].split(64), logits.split(64), strict=True):
        distances.update(Features(part, scores), real=False)
    return distances.compute(), logits


def test_the_frechet_distance_agrees_with_a_second_implementation(sets, found):
    real, other = (part.double().numpy() for part in sets)
    root = scipy.linalg.sqrtm(np.cov(real.T) @ np.cov(other.T))
    expected = ((real.mean(0) - other.mean(0)) ** 2).sum() + np.trace(np.cov(real.T) + np.cov(other.T) - 2 * root.real)
    assert found[0]["frechet"].value == pytest.approx(expected, rel=1e-4)


def test_a_frechet_distance_of_fewer_images_than_features_says_so(found):
    assert found[0]["frechet"].note is None
    distances = SetDistances()
    for real, count in ((True, 40), (False, 12)):
        distances.update(Features(torch.randn(count, 12), None), real=real)
    value = distances.compute()["frechet"]
    assert value.note == "biased: 12 images for 12 features" and value.shown(".4g").endswith(f", {value.note}")
    assert Value.from_json(value.to_json()) == value


def test_the_kernel_distance_agrees_with_its_definition(sets, found):
    def kernel(first, second):
        return (first @ second.T / first.shape[1] + 1) ** 3

    def without_diagonal(matrix):
        count = len(matrix)
        return (matrix.sum() - matrix.trace()) / (count * (count - 1))

    real, other = (part.double() for part in sets)
    expected = without_diagonal(kernel(real, real)) + without_diagonal(kernel(other, other))
    expected = (expected - 2 * kernel(real, other).mean()).item()
    value = found[0]["kernel"]
    # a mean over subsets of half of the images
    assert abs(value.value - expected) < 3 * value.deviation / 10


def test_the_score_is_the_exponential_of_a_divergence(found):
    value, logits = found[0]["score"], found[1]
    shares = softmax(logits, dim=1)
    whole = (shares * (shares.log() - shares.mean(0).log())).sum(1).mean().exp().item()
    # splits are of 26 images, whose own mean is nearer to them than that of all
    assert 0.7 * whole < value.value < whole
    assert value.deviation > 0


def test_there_is_no_score_without_classes(sets):
    distances = SetDistances()
    for real, part in zip((True, False), sets, strict=True):
        distances.update(Features(part, None), real=real)
    assert set(distances.compute()) == {"frechet", "kernel", "precision", "recall"}


def test_the_same_seed_gives_the_same_and_leaves_the_random_state(sets):
    def compute():
        distances = SetDistances()
        for real, part in zip((True, False), sets, strict=True):
            distances.update(Features(part, None), real=real)
        return distances.compute(seed=1)

    before = torch.random.get_rng_state()
    assert compute() == compute()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_precision_and_recall_agree_with_their_definition(sets):
    real, other = sets[0][:40], 1.2 * sets[0][40:70] + 0.3
    precision, recall = precision_recall(real, other, neighbours=3)

    def covered(support, images):
        inside = 0
        for image in images:
            inside += any(
                (image - centre).norm() <= sorted((centre - one).norm() for one in support)[3] for centre in support
            )
        return inside / len(images)

    assert precision == pytest.approx(covered(real, other)) and recall == pytest.approx(covered(other, real))
    assert 0 < precision < 1 and 0 < recall < 1


def test_equal_sets_cover_each_other(sets):
    assert precision_recall(sets[0], sets[0]) == (1.0, 1.0)


@pytest.mark.parametrize("count", [0, 1])
def test_a_set_of_fewer_than_two_images_has_no_distance(sets, count):
    distances = SetDistances()
    distances.update(Features(sets[0], None), real=True)
    distances.update(Features(sets[1][:count], None), real=False)
    with pytest.raises(UserError, match=f"needs at least 2 of each, not {count}: give more pictures"):
        distances.compute()


def test_two_images_are_enough(sets):
    distances = SetDistances()
    for real, part in zip((True, False), sets, strict=True):
        distances.update(Features(part[:2], torch.randn(2, 4)), real=real)
    assert all(math.isfinite(value.value) for value in distances.compute().values())


# where a process begins: 33 and 32 images make batches of 32, 1 and 32; 0 leaves the first process without any
@pytest.mark.parametrize("first", [33, 0])
def test_processes_that_share_the_images_unevenly_find_the_same(sets, first, tmp_path):
    real, other = sets[0][:65], sets[1][:65]
    logits = torch.randn(65, 5, generator=torch.Generator().manual_seed(4))
    alone = _distances(real, other, logits)
    parts = [[part[:first], part[first:]] for part in (real, other, logits)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vltok.evaluation.distances"])
    shares = list(zip(*parts, strict=True))
    processes = [context.Process(target=_share, args=(rank, tmp_path, share)) for rank, share in enumerate(shares)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == {name: value.to_json() for name, value in alone.items()}


def _share(rank, folder, share):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = _distances(*share)
    (folder / f"{rank}.json").write_text(json.dumps({name: value.to_json() for name, value in found.items()}))
    distributed.destroy_process_group()


def _distances(real, other, logits):
    distances = SetDistances()
    for part in real.split(32) if len(real) else ():
        distances.update(Features(part, None), real=True)
    for part, scores in zip(other.split(32), logits.split(32), strict=True) if len(other) else ():
        distances.update(Features(part, scores), real=False)
    return Seen(distances.items, lambda items: SetDistances(seen=items).compute()).together()
