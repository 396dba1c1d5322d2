import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vltok.nn.linear import Linear, PackedLinear, packs


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_packed_layer_gives_what_the_plain_one_gives(dtype, tolerance, bias):
    if not packs(dtype):
        pytest.skip("this CPU has no such kernels")
    layer = Linear(48, 80, bias=bias)
    packed = PackedLinear(layer, dtype)
    for rows in (1, 2, 17, 64):
        hidden = torch.randn(rows, 48)
        found = packed(hidden)
        assert found.dtype == packed.weight.dtype == dtype
        torch.testing.assert_close(found.float(), layer(hidden), rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_single_rows_in_float32_need_no_second_weight():
    layer = Linear(8, 8)
    packed = PackedLinear(layer, torch.float32)
    hidden = torch.randn(1, 8)
    assert packed(hidden).equal(layer(hidden))
    assert packed.weight.data_ptr() == layer.weight.data_ptr()
    assert "_packed" not in vars(packed)


def test_where_there_are_no_kernels_none_are_used(monkeypatch):
    monkeypatch.setattr(PackedLinear, "forward", lambda *_: torch.ops.mkldnn._no_such_operation())
    assert not packs.__wrapped__(torch.float32)


class Casts(TorchDispatchMode):
    """The shapes of what is cast to another type."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten._to_copy.default:
            self.shapes.append(tuple(args[0].shape))
        return operation(*args, **(kwargs or {}))


def test_autocast_casts_the_weight_alone_where_the_input_has_its_type():
    layer = Linear(8, 4)
    hidden = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    with Casts() as casts, torch.autocast("cpu", torch.bfloat16):
        found = layer(hidden)
        found.backward(torch.ones_like(found))
    assert found.dtype == torch.bfloat16
    assert (3, 8) not in casts.shapes
    assert layer(hidden).dtype == torch.float32
