"""Distances between sets of images, against second implementations on the same features."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.nn.functional import softmax

from vltok.evaluation.distances import PrecisionRecall, SetDistances
from vltok.evaluation.features import Features


@pytest.fixture(scope="module")
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(300, 12, generator=generator)
    return real, 1.3 * torch.randn(260, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 0.4


@pytest.fixture(scope="module")
def found(sets):
    distances = SetDistances(12)
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
    distances = SetDistances(12)
    for real, part in zip((True, False), sets, strict=True):
        distances.update(Features(part, None), real=real)
    assert set(distances.compute()) == {"frechet", "kernel", "precision", "recall"}


def test_the_same_seed_gives_the_same_and_leaves_the_random_state(sets):
    def compute():
        distances = SetDistances(12)
        for real, part in zip((True, False), sets, strict=True):
            distances.update(Features(part, None), real=real)
        return distances.compute(seed=1)

    before = torch.random.get_rng_state()
    assert compute() == compute()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_precision_and_recall_agree_with_their_definition(sets):
    metric = PrecisionRecall(neighbours=3)
    real, other = sets[0][:40], 1.2 * sets[0][40:70] + 0.3
    for part in real.split(7):
        metric.update(part, real=True)
    metric.update(other, real=False)
    precision, recall = (value.item() for value in metric.compute())

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
    metric = PrecisionRecall()
    for real in (True, False):
        metric.update(sets[0], real=real)
    assert [value.item() for value in metric.compute()] == [1.0, 1.0]
