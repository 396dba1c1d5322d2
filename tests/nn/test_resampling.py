import pytest
import torch

from vltok.nn.resampling import Downsample, Upsample


@pytest.mark.parametrize(("height", "width"), [(4, 6), (2, 2), (8, 2)])
def test_sides_halve_and_double(height, width) -> None:
    x = torch.randn(1, 3, height, width)
    assert Downsample(3)(x).shape == (1, 3, height // 2, width // 2)
    assert Upsample(3)(x).shape == (1, 3, 2 * height, 2 * width)


def test_downsampling_pads_at_the_right_and_at_the_bottom_only() -> None:
    layer = Downsample(1)
    torch.nn.init.ones_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    expected = torch.tensor(
        [[x[..., :3, :3].sum(), x[..., :3, 2:].sum()], [x[..., 2:, :3].sum(), x[..., 2:, 2:].sum()]]
    )
    assert torch.equal(layer(x)[0, 0], expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 1, 2, 3), (2, 5, 3, 4), (1, 9, 2, 3)])
def test_upsampling_repeats_before_its_convolution(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    layer = Upsample(shape[1]).double()
    x = torch.randn(shape, dtype=torch.double).contiguous(memory_format=layout).requires_grad_()
    found, expected = layer(x), layer.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(found, expected)
    inputs = (x, *layer.parameters())
    torch.testing.assert_close(*(torch.autograd.grad(each.square().sum(), inputs) for each in (found, expected)))
