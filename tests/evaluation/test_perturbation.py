"""Reconstructions of which some codes are wrong."""

import pytest
import torch

from tests.evaluation.grey import Grey
from vltok.errors import UserError
from vltok.evaluation.features import feature_network
from vltok.evaluation.measurement import ProcessShare
from vltok.evaluation.perturbation import codebook_vectors, measure_perturbed, near_codes
from vltok.evaluation.values import Value
from vltok.pictures.photos import Photos
from vltok.tokenizers.quantizers import VectorQuantizer


def test_another_code_takes_the_place_of_each_and_a_near_one() -> None:
    vectors = torch.linspace(-1, 1, 64)[:, None]
    ids = torch.arange(64).repeat(50)
    others = near_codes(ids, vectors, 4, torch.rand(len(ids)))
    steps = (others - ids).abs()
    assert steps.min() == 1 and steps[2:62].max() == 2 and steps.max() <= 4
    assert all(len(others[ids == each].unique()) == 4 for each in range(64))
    # of codes in the same place too
    assert near_codes(torch.tensor([0, 1]), torch.zeros(2, 1), 1, torch.zeros(2)).tolist() == [1, 0]


def measured(batch_size: int, seed: int = 0, network: str | None = None) -> dict[str, Value]:
    data = Photos(size=16, val_crops=9, batch_size=batch_size, workers=0)
    batches = ProcessShare(batch_size=batch_size).batches(data.export_source("val"))
    tokenizer, features = Grey(), None if network is None else feature_network(network)
    found, protocol = measure_perturbed(tokenizer, tokenizer.encode, batches, features, "cpu", seed)
    assert protocol == {"shares": [0.1, 0.25, 0.5], "nearest": 4, "seed": seed}
    return found.together()


def test_the_more_is_wrong_the_worse() -> None:
    found = measured(4, network="random:test_resnet")
    shares = ("perturbed_10", "perturbed_25", "perturbed_50")
    psnr, distance = (
        [found[f"{share}_{name}"].value for share in shares] for name in ("psnr", "frechet_distance/random:test_resnet")
    )
    assert psnr == sorted(psnr, reverse=True) and min(distance) > 0
    assert {name.removeprefix("perturbed_10_") for name in found if "_10_" in name} == {
        *("psnr", "frechet_distance/random:test_resnet", "kernel_distance/random:test_resnet")
    }
    low, high = found["perturbed_50_psnr"].low, found["perturbed_50_psnr"].high
    assert low is not None and high is not None and low < psnr[2] < high


def test_what_is_replaced_follows_from_picture_and_seed_alone() -> None:
    first = {name: each.value for name, each in measured(4).items()}
    assert {name: each.value for name, each in measured(2).items()} == pytest.approx(first, rel=1e-6)
    assert measured(4, seed=1)["perturbed_50_psnr"].value != first["perturbed_50_psnr"]


def test_the_codebook_s_vectors_are_those_of_one_quantizer() -> None:
    tokenizer = Grey(5)
    assert codebook_vectors(tokenizer, "cpu").tolist() == [[-1.0], [-0.5], [0.0], [0.5], [1.0]]
    tokenizer.other = VectorQuantizer(5, 2)
    with pytest.raises(UserError, match="Grey has 2 quantizers of its 5 codes"):
        codebook_vectors(tokenizer, "cpu")
