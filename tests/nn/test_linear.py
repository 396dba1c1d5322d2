import pytest
import torch

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
