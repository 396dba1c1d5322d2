import functools
import math
import re
import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from vltok.nn import attention
from vltok.nn.attention import Packing, backend, packed_causal_attention, sdpa_attention

HEADS, WIDTH = 2, 8


def plain(query, key, value, lengths):
    """Softmax attention of each image alone, in float64."""
    outputs = []
    for q, k, v in zip(*(tensor.double().split(lengths) for tensor in (query, key, value)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
        future = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(future, -torch.inf).softmax(-1), v))
    return torch.cat(outputs)


def operands(total, dtype=torch.float64, device="cpu"):
    return [torch.randn(total, HEADS, WIDTH, dtype=dtype, device=device, requires_grad=True) for _ in range(3)]


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_equals_a_plain_softmax_and_so_do_its_gradients(lengths):
    inputs = operands(sum(lengths))
    attended = packed_causal_attention(*inputs, Packing(torch.tensor(lengths)))
    expected = plain(*inputs, lengths)
    assert_close(attended, expected)
    upstream = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(attended, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        assert_close(ours, theirs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precision_stays_within_its_rounding(dtype, tolerance):
    lengths = [3, 7, 1]
    inputs = operands(sum(lengths), dtype)
    attended = packed_causal_attention(*inputs, Packing(torch.tensor(lengths)))
    assert attended.dtype == dtype
    assert_close(attended.double(), plain(*inputs, lengths), rtol=tolerance, atol=tolerance)


def test_dropout_drops_and_keeps_the_mean():
    inputs = [tensor.detach() for tensor in operands(6)]
    packing = Packing(torch.tensor([2, 4]))
    drawn = torch.stack([packed_causal_attention(*inputs, packing, 0.5) for _ in range(300)])
    assert not torch.equal(drawn[0], drawn[1])
    # the standard deviation of the mean of 300 is below 0.1
    assert_close(drawn.mean(0), packed_causal_attention(*inputs, packing), rtol=0, atol=0.5)


def test_packing_says_where_images_lie():
    packing = Packing(torch.tensor([2, 3]))
    assert packing.cu_seqlens.tolist() == [0, 2, 5]
    assert packing.images.tolist() == [0, 0, 1, 1, 1]
    assert packing.steps.tolist() == [0, 1, 0, 1, 2]
    assert packing.padded_slots.tolist() == [0, 1, 3, 4, 5]
    assert Packing(torch.tensor([2, 2])).padded_slots is None


def test_the_cpu_is_served_by_pytorch():
    assert backend("cpu", torch.float32, 8) is sdpa_attention


def served(query, key, value, attn_bias, p):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


def unserved(query, key, value, attn_bias, p):
    raise NotImplementedError("No operator found for `memory_efficient_attention_forward`\nmuch more")


MASK = SimpleNamespace(BlockDiagonalCausalMask=SimpleNamespace(from_seqlens=lambda lengths, device: None))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (SimpleNamespace(attn_bias=MASK, memory_efficient_attention=unserved), "No operator found"),
        (SimpleNamespace(attn_bias=MASK), "no attribute 'memory_efficient_attention'"),
        (SimpleNamespace(), "no attribute 'attn_bias'|no attribute 'memory_efficient_attention'"),
    ],
)
def test_where_xformers_has_no_kernel_pytorch_serves_and_one_line_says_so(module, reason, monkeypatch):
    monkeypatch.setattr(attention, "_xformers", lambda: module)
    monkeypatch.setattr(attention, "_tried", functools.cache(attention._tried.__wrapped__))
    with warnings.catch_warnings(record=True) as said, torch.inference_mode():
        assert [attention._serves("cpu", torch.bfloat16, 48, False) for _ in range(3)] == [False] * 3
    (line,) = [str(each.message) for each in said]
    assert re.fullmatch(rf"xformers has no attention for bfloat16 in heads of 48 .*({reason}).*PyTorch's serves", line)
    monkeypatch.setattr(attention, "_serves", lambda *_: False)
    assert backend("cuda", torch.bfloat16, 48) is sdpa_attention


def test_where_xformers_has_a_kernel_it_serves(monkeypatch):
    module = SimpleNamespace(attn_bias=MASK, memory_efficient_attention=served)
    monkeypatch.setattr(attention, "_xformers", lambda: module)
    monkeypatch.setattr(attention, "_tried", functools.cache(attention._tried.__wrapped__))
    before = torch.get_rng_state()
    assert attention._serves("cpu", torch.float32, 8, True)
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(attention, "_serves", lambda *_: True)
    assert backend("cuda", torch.float32, 8) is attention.xformers_attention


if find_spec("xformers"):

    def test_xformers_mask_is_block_diagonal_and_causal():
        mask = Packing(torch.tensor([2, 3])).block_diagonal_mask.materialize((5, 5))
        images = torch.tensor([0, 0, 1, 1, 1])
        visible = (images[:, None] == images) & torch.ones(5, 5, dtype=torch.bool).tril()
        assert torch.equal(mask == 0, visible)


if torch.cuda.is_available():

    @pytest.mark.parametrize("attention", [sdpa_attention, backend("cuda")])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
    def test_cuda_backends_agree(attention, dtype, tolerance):
        lengths = [5, 130, 17]
        inputs = operands(sum(lengths), dtype, "cuda")
        attended = attention(*inputs, Packing(torch.tensor(lengths, device="cuda")), 0.0)
        expected = plain(*(tensor.cpu() for tensor in inputs), lengths)
        assert_close(attended.cpu().double(), expected, rtol=tolerance, atol=tolerance)
        for gradient in torch.autograd.grad(attended.sum(), inputs):
            assert gradient.isfinite().all()
