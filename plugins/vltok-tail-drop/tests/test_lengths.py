from collections.abc import Callable

import pytest
import torch

from vltok.errors import UserError
from vltok_tail_drop.lengths import FixedLength, MeanLength, PSNRTarget, pixel_errors

#: Errors of three images at five lengths; those of the second do not fall all the way.
ERRORS = torch.tensor([[9.0, 7, 5, 3, 1], [8, 2, 4, 2, 2], [6, 6, 6, 6, 6]])


def falling_errors(images: int = 500, longest: int = 32) -> torch.Tensor:
    """Errors that fall with the length, from a level of each image's own."""
    levels = torch.rand(images, 1, generator=torch.Generator().manual_seed(0)) * 5
    return (levels - torch.linspace(0, 3, longest)).exp() * 10


def measure_of(errors: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda lengths: errors.gather(1, lengths - 1)


def must_not_measure(lengths: torch.Tensor) -> torch.Tensor:
    raise AssertionError("measured for nothing")


def test_a_fixed_length_needs_no_measuring():
    policy = FixedLength(3)
    assert policy(2, 5, must_not_measure).tolist() == [3, 3] and policy.expected_length == 3


def test_a_psnr_is_reached_with_the_fewest_codes():
    ratios = 10 * (255**2 / ERRORS).log10()
    for psnr in (39.0, 41.0, 44.0):
        lengths = PSNRTarget(psnr)(3, 5, measure_of(ERRORS))
        for image, length in enumerate(lengths.tolist()):
            assert (ratios[image, : length - 1] < psnr).all()
            assert ratios[image, length - 1] >= psnr or length == 5


def test_a_threshold_is_met_by_bisection():
    """With as many decodings as the longest length has bits, where errors fall."""
    errors = falling_errors(images=100, longest=30)
    policy, asked = MeanLength(8.0), []

    def measure(lengths: torch.Tensor) -> torch.Tensor:
        asked.append(lengths)
        return errors.gather(1, lengths - 1)

    for threshold in errors.quantile(torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])):
        policy.threshold.copy_(threshold)
        lengths = policy(100, 30, measure)
        assert lengths.equal(((errors > threshold).sum(1) + 1).clamp_max(30))
    assert len(asked) == 5 * 5


@pytest.mark.parametrize("length", [1, 2.5, 16, 31, 32])
def test_calibration_meets_the_mean_length(length):
    errors = falling_errors()
    policy = MeanLength(length)
    assert policy(500, 32, measure_of(errors)).tolist() == [32] * 500  # before it
    policy.calibrate(errors)
    lengths = policy(500, 32, measure_of(errors))
    assert lengths.float().mean().item() == pytest.approx(length, abs=0.01)


@pytest.mark.parametrize("length", [4, 16, 28])
def test_training_learns_the_threshold_of_the_mean_length(length):
    errors = falling_errors()
    policy = MeanLength(length)
    torch.manual_seed(0)
    for step in range(400):
        images = torch.randint(500, (32,))
        lengths = torch.randint(1, 33, (32,))
        # the errors of early training are larger
        policy.observe(lengths, errors[images, lengths - 1] * (1 + 10 / (1 + step)), 32)
    assert policy(500, 32, measure_of(errors)).float().mean().item() == pytest.approx(length, abs=1)


def test_harder_images_keep_more_codes():
    errors = falling_errors()
    policy = MeanLength(16.0)
    policy.calibrate(errors)
    lengths = policy(500, 32, measure_of(errors))
    order = errors[:, 0].argsort()
    assert lengths[order].diff().min() >= 0 and lengths.unique().numel() > 10


def test_errors_are_those_of_8_bit_pixels():
    images = torch.randint(256, (2, 3, 4, 4)) / 127.5 - 1
    assert pixel_errors(images + 0.4 / 127.5, images).tolist() == [0, 0]
    off = images.clone()
    off[1, 0, 0, 0] += torch.where(off[1, 0, 0, 0] > 0, -6.0, 6.0) / 127.5
    assert pixel_errors(off, images).tolist() == pytest.approx([0, 36 / 48])


@pytest.mark.parametrize(
    ("key", "build"),
    [
        ("length", lambda: FixedLength(0)),
        ("length", lambda: MeanLength(0.5)),
        ("rate", lambda: MeanLength(4, rate=0.0)),
        ("psnr", lambda: PSNRTarget(0.0)),
        ("psnr", lambda: PSNRTarget(float("nan"))),
    ],
)
def test_what_cannot_be_is_refused(key, build):
    with pytest.raises(UserError, match=rf"length_policy\.{key}"):
        build()
