import torch

from vltok.nn.regions import region_errors


def test_a_regions_error_is_the_sum_over_its_pixels_and_channels() -> None:
    images, other = torch.rand(2, 3, 8, 12), torch.rand(2, 3, 8, 12)
    errors = region_errors(other, images, 4)
    assert errors.shape == (2, 2, 3)
    expected = (other - images)[1, :, 4:8, 8:12].square().sum()
    torch.testing.assert_close(errors[1, 1, 2], expected)
    torch.testing.assert_close(errors.sum(), (other - images).square().sum())
