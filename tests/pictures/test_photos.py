"""The embedded photographs: real, held out by photograph, the same crops again."""

import pytest
import torch

from vltok.errors import UserError
from vltok.pictures.images import ImageBatch
from vltok.pictures.photos import HELD_OUT, TRAINING, Photos


def photographs(batches: list[ImageBatch]) -> set[str]:
    return {key.partition("-")[0] for batch in batches for key in batch.keys}


def small(**changes: object) -> Photos:
    return Photos(**{"size": 32, "batch_size": 8, "train_crops": 60, "val_crops": 21} | changes)


def test_no_photograph_is_on_both_sides() -> None:
    assert not TRAINING.keys() & HELD_OUT.keys()
    pair = {"motorcycle_left.png", "motorcycle_right.png"}
    assert pair <= TRAINING.keys() or pair <= HELD_OUT.keys()


def test_each_side_shows_its_photographs() -> None:
    data = small()
    assert photographs(list(data.val_dataloader())) == {"chelsea", "china", "coffee"}
    training = photographs(list(data.train_dataloader()))
    assert training <= {name.partition(".")[0] for name in TRAINING}
    assert photographs(list(data.training_crops_dataloader())) == {name.partition(".")[0] for name in TRAINING}


def test_batches_are_images() -> None:
    batches = list(small().train_dataloader())
    assert len(batches) == len(small().train_dataloader()) == 7  # of 60 crops, the last four fill no batch
    for batch in batches:
        assert batch.images.shape == (8, 3, 32, 32)
        assert batch.images.min() >= -1
        assert batch.images.max() <= 1
        assert batch.labels is None
    assert torch.cat([batch.images for batch in batches]).std() > 0.3


def test_held_out_crops_are_the_same_each_time_and_cover_each_photograph_evenly() -> None:
    data = small()
    first, again = list(data.val_dataloader()), list(data.val_dataloader())
    assert [len(batch) for batch in first] == [8, 8, 5]
    assert all(torch.equal(one.images, other.images) for one, other in zip(first, again, strict=True))
    keys = [key for batch in first for key in batch.keys]
    assert len(set(keys)) == 21
    assert sum(key.startswith("china") for key in keys) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_training_crops_change_with_the_epoch_and_repeat_with_the_seed(workers: int) -> None:
    def epochs(seed: int) -> list[torch.Tensor]:
        loader = small(seed=seed, workers=workers).train_dataloader()
        return [torch.cat([batch.images for batch in loader]) for _ in range(2)]

    first, second = epochs(0)
    assert not torch.equal(first, second)
    for one, other in zip((first, second), epochs(0), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first, epochs(1)[0])


def test_no_crop_depends_on_the_workers() -> None:
    alone, helped = small(workers=0), small(workers=2)
    for name in ("train_dataloader", "val_dataloader", "training_crops_dataloader", "export_dataloader"):
        pairs = zip(getattr(alone, name)(), getattr(helped, name)(), strict=True)
        assert all(torch.equal(one.images, other.images) and one.keys == other.keys for one, other in pairs)


def test_lightning_tells_the_epoch() -> None:
    resumed = small().train_dataloader()
    resumed.sampler.set_epoch(1)
    from_start = small().train_dataloader()
    list(from_start)
    for one, other in zip(resumed, from_start, strict=True):
        assert torch.equal(one.images, other.images)


def test_crops_for_measuring_are_fresh() -> None:
    data = small()
    seen = {
        key: image for batch in data.train_dataloader() for key, image in zip(batch.keys, batch.images, strict=True)
    }
    for batch in data.training_crops_dataloader():
        for key, image in zip(batch.keys, batch.images, strict=True):
            assert key not in seen or not torch.equal(image, seen[key])


def test_export_gives_each_photograph_once() -> None:
    keys = [key for batch in small().export_dataloader() for key in batch.keys]
    assert keys == [name.partition(".")[0] for name in TRAINING | HELD_OUT]


def test_crops_larger_than_a_photograph() -> None:
    batch = next(iter(Photos(size=320, batch_size=2, val_crops=3, train_crops=2).val_dataloader()))
    assert batch.images.shape == (2, 3, 320, 320)


def test_description_lists_both_sides() -> None:
    assert small().description()["split"] == {"train": list(TRAINING), "held_out": list(HELD_OUT)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"data\.size must be at least 1, not 0"),
        ({"batch_size": 0}, r"data\.batch_size must be at least 1, not 0"),
        ({"workers": -1}, r"data\.workers must be at least 0, not -1"),
        ({"train_crops": 7}, r"data\.train_crops must be at least 8, not 7"),
        ({"scales": (2.0, 1.0)}, r"data\.scales must be two positive numbers, the smaller first, not \[2.0, 1.0\]"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**arguments)
