"""Batches of images."""

import pytest
import torch

from vltok.errors import UserError
from vltok.pictures.images import ImageBatch, Sample, collate


def sample(key: str, value: int, label: int | None = None) -> Sample:
    return Sample(key, torch.full((3, 4, 4), value, dtype=torch.uint8), label)


def test_collate() -> None:
    batch = collate([sample("a", 0, 5), sample("b", 255, 2)])
    assert len(batch) == 2
    assert batch.keys == ["a", "b"]
    assert batch.labels.tolist() == [5, 2]
    assert batch.labels.dtype == torch.int64
    assert batch.images.dtype == torch.float32
    assert batch.images[:, 0, 0, 0].tolist() == [-1, 1]


def test_collate_without_labels() -> None:
    assert collate([sample("a", 0), sample("b", 0)]).labels is None


def test_collate_refuses_a_mixture() -> None:
    with pytest.raises(UserError, match="picture b has no class"):
        collate([sample("a", 0, 1), sample("b", 0)])


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 2])])
def test_batch_moves_to_a_device(labels: torch.Tensor | None) -> None:
    moved = ImageBatch(torch.zeros(2, 3, 4, 4), labels, ["a", "b"]).to("meta")
    assert moved.images.is_meta
    assert (moved.labels is None) == (labels is None)
    assert labels is None or moved.labels.is_meta
    assert moved.keys == ["a", "b"]
