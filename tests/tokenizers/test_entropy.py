import math

import pytest
import skimage.data
import torch

from vltok.errors import UserError
from vltok.tokenizers.entropy import (
    LARGEST,
    STEPS,
    calibrated_thresholds,
    entropy_histogram,
    entropy_map,
    thresholds_of,
)


@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize(("suffix", "bins"), [("", (-1.0, 1.0)), ("_bins01", (0.0, 1.0))])
def test_entropy_equals_the_originals(parity, patch, suffix, bins) -> None:
    tensors, _ = parity("entropy")
    entropies = entropy_map(tensors["in.x"], patch, bins)
    torch.testing.assert_close(entropies, tensors[f"out.entropy_patch{patch}{suffix}"], rtol=1e-4, atol=1e-4)


def test_entropy_needs_no_subnormal_numbers() -> None:
    images = torch.cat([torch.full((1, 3, 16, 16), value) for value in (-1.0, -0.0323, 0.0, 0.5, 1.0)])
    expected = {bins: entropy_map(images, 8, bins) for bins in ((-1.0, 1.0), (0.0, 1.0))}
    torch.set_flush_denormal(True)
    try:
        for bins, entropies in expected.items():
            assert torch.equal(entropy_map(images, 8, bins), entropies) and entropies.isfinite().all()
    finally:
        torch.set_flush_denormal(False)
    # out of the bins' range there is nothing to tell apart; between two bins it is half of each
    assert expected[0.0, 1.0][0].abs().max() < 1e-9
    center = torch.linspace(-1, 1, 32)[15:17].mean()
    between = entropy_map(center.expand(1, 3, 8, 8), 8)
    assert between.item() == pytest.approx(math.log(2), abs=1e-4)


def test_entropy_is_bounded_by_that_of_all_levels() -> None:
    levels = torch.linspace(-1, 1, 32).repeat(2).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    assert entropy_map(levels, 8).item() == pytest.approx(LARGEST, abs=1e-3)


def test_thresholds_part_the_regions_of_photographs_in_the_ratios() -> None:
    photograph = torch.from_numpy(skimage.data.chelsea()[:288, :448]).movedim(-1, 0)[None] / 127.5 - 1
    shares = [0.3, 0.625, 0.075]
    device = torch.device("cpu")
    thresholds = torch.tensor(calibrated_thresholds(photograph.split(32, dim=2), 16, shares, (-1.0, 1.0), device))
    entropies = entropy_map(photograph, 16).flatten()
    found = torch.bincount((entropies[:, None] > thresholds).sum(1), minlength=3) / entropies.numel()
    torch.testing.assert_close(found, torch.tensor(shares), rtol=0, atol=1 / entropies.numel())


def found_shares(entropies: torch.Tensor, shares: list[float]) -> list[float]:
    thresholds = torch.tensor(thresholds_of(entropy_histogram(entropies), shares))
    assert thresholds.tolist() == sorted(thresholds.tolist())
    kinds = (entropies[:, None] > thresholds).sum(dim=1)
    return (torch.bincount(kinds, minlength=len(shares)) / entropies.numel()).tolist()


@pytest.mark.parametrize(
    "shares", [[1.0], [0.5, 0.5], [0.1, 0.9], [0.3, 0.625, 0.075], [0.25] * 4, [0.0, 1.0], [1.0, 0.0], [0.5, 0.0, 0.5]]
)
def test_thresholds_for_any_number_of_granularities(shares) -> None:
    assert found_shares(torch.rand(4000) * LARGEST, shares) == pytest.approx(shares, abs=2e-3)


def test_equal_entropies_stay_together_on_the_nearer_side() -> None:
    flat = torch.cat([torch.zeros(400), torch.rand(600) + 1])
    assert found_shares(flat, [0.5, 0.5]) == pytest.approx([0.5, 0.5], abs=1e-6)
    assert found_shares(flat, [0.3, 0.7]) == pytest.approx([0.4, 0.6], abs=1e-6)
    assert found_shares(flat, [0.1, 0.9]) == pytest.approx([0.0, 1.0])
    assert found_shares(flat, [0.3, 0.2, 0.5]) == pytest.approx([0.4, 0.1, 0.5], abs=1e-6)
    assert found_shares(torch.ones(10), [0.6, 0.4]) == [1.0, 0.0]


def test_a_threshold_lies_in_the_middle_of_its_gap() -> None:
    """So that no rounding, of another device say, carries a region across."""
    (threshold,) = thresholds_of(entropy_histogram(torch.tensor([1.0, 1.0, 2.0, 2.0])), [0.5, 0.5])
    assert threshold == pytest.approx(1.5, abs=2 * LARGEST / STEPS)


def test_the_order_of_batches_does_not_matter() -> None:
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    images *= torch.linspace(0, 1, 6)[:, None, None, None]
    device = torch.device("cpu")
    forward = calibrated_thresholds(images.split(1), 8, [0.4, 0.6], (-1.0, 1.0), device)
    assert forward == calibrated_thresholds(images.flip(0).split(4), 8, [0.4, 0.6], (-1.0, 1.0), device)


def test_no_images() -> None:
    with pytest.raises(UserError, match="no images to calibrate"):
        calibrated_thresholds([], 8, [0.5, 0.5], (-1.0, 1.0), torch.device("cpu"))
