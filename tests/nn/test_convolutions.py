"""Packed convolutions give what plain ones give, and leave nothing behind."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from vltok.nn import convolutions
from vltok.nn.convolutions import packed_convolutions, plus_convolved
from vltok.nn.precision import computing
from vltok.nn.resampling import Upsample

LAYERS = {
    "padded": lambda: nn.Conv2d(8, 12, 3, padding=1),
    "halving": lambda: nn.Conv2d(8, 12, 3, stride=2, bias=False),
    "pointwise": lambda: nn.Conv2d(8, 12, 1),
    "in groups": lambda: nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4),
    "same": lambda: nn.Conv2d(8, 12, 3, padding="same"),
    "mirrored": lambda: nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect"),
    "doubling": lambda: Upsample(8),
}


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03), ("float16", 0.003)])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@torch.no_grad()
def test_packed_layers_give_what_plain_ones_give(
    make: Callable[[], nn.Module], precision: str, tolerance: float
) -> None:
    layer = make()
    shapes = [(2, 8, 6, 7), (1, 8, 3, 3), (0, 8, 6, 7)]
    layouts = (torch.contiguous_format, torch.channels_last)
    maps = [torch.randn(shape).contiguous(memory_format=layout) for shape in shapes for layout in layouts]
    expected = [layer(x) for x in maps]
    dtype = getattr(torch, precision)
    with packed_convolutions(layer), computing("cpu", precision):
        for x, plain in zip(maps, expected, strict=True):
            found = layer(x)
            if x.numel():
                assert found.dtype == dtype
            torch.testing.assert_close(found.float(), plain, rtol=tolerance, atol=tolerance)
            for layout in layouts:
                other = torch.randn(plain.shape).to(dtype).contiguous(memory_format=layout)
                before = other.clone()
                total = plus_convolved(other, layer, x)
                torch.testing.assert_close(total.float(), plain + other.float(), rtol=tolerance, atol=tolerance)
                assert other.equal(before) and (not x.numel() or total.dtype == dtype)


@torch.no_grad()
def test_packed_weights_are_used_inside_the_block_alone() -> None:
    model, x = nn.Sequential(nn.Conv2d(8, 8, 3), Upsample(8)), torch.randn(1, 8, 6, 6)
    with packed_convolutions(model):
        before = model(x)
        for weight in model.parameters():
            if weight.dim() == 4:
                weight.zero_()
        assert model(x).equal(before)
    after = model(x)
    assert not after.equal(before)
    with packed_convolutions(model):
        torch.testing.assert_close(model(x), after)


def test_gradients_flow_as_without() -> None:
    layer = nn.Conv2d(4, 4, 3)
    with packed_convolutions(layer):
        layer(torch.randn(1, 4, 5, 5)).sum().backward()
    assert layer.weight.grad is not None


@torch.no_grad()
def test_blocks_may_lie_in_each_other() -> None:
    layer, x = nn.Conv2d(4, 4, 3), torch.randn(1, 4, 5, 5)
    with packed_convolutions(layer):
        with packed_convolutions(layer):
            layer(x)
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)


@torch.no_grad()
def test_double_precision_stays_so() -> None:
    layer, x = nn.Conv2d(4, 4, 3).double(), torch.randn(1, 4, 5, 5, dtype=torch.double)
    expected = layer(x)
    with packed_convolutions(layer):
        assert layer(x).equal(expected)


@torch.no_grad()
def test_where_there_are_no_kernels_none_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        return torch.ops.mkldnn._no_such_operation()

    monkeypatch.setattr(convolutions, "_Convolution", missing)
    assert not convolutions._has_kernels.__wrapped__(torch.float32)


@torch.no_grad()
def test_a_weight_is_packed_once_a_size_and_for_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(8, 12, 3)
    sides = (4, 5, 6, 5, 4)
    maps = [torch.randn(images, 8, side, 6) for side in sides for images in (2, 1)]
    expected = [layer(x) for x in maps]
    packings: list[weakref.ref] = []
    make = convolutions._Convolution

    def counted(*arguments) -> object:
        kernel = make(*arguments)
        packings.append(weakref.ref(kernel))
        return kernel

    monkeypatch.setattr(convolutions, "_Convolution", counted)
    for kept, made in ((2, 4), (3, 3)):
        monkeypatch.setattr(convolutions, "_SIZES", kept)
        packings.clear()
        with packed_convolutions(layer):
            for x, plain in zip(maps, expected, strict=True):
                torch.testing.assert_close(layer(x), plain)
                assert sum(packing() is not None for packing in packings) <= kept
        assert len(packings) == made
