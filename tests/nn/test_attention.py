import functools
import math
import re
import sys
import warnings
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from vltok.nn import attention
from vltok.nn.attention import Packing, backend, packed_attention, sdpa_attention

HEADS, WIDTH = 2, 8


def plain(query, key, value, lengths, causal=True):
    """Softmax attention of each image alone, in float64."""
    outputs = []
    for q, k, v in zip(*(tensor.double().split(lengths) for tensor in (query, key, value)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
        future = torch.ones(len(q), len(q), dtype=torch.bool).triu(1) & causal
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(future, -torch.inf).softmax(-1), v))
    return torch.cat(outputs)


def operands(total, dtype=torch.float64, device="cpu"):
    return [torch.randn(total, HEADS, WIDTH, dtype=dtype, device=device, requires_grad=True) for _ in range(3)]


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), causal=st.booleans())
def test_equals_a_plain_softmax_and_so_do_its_gradients(lengths, causal):
    inputs = operands(sum(lengths))
    attended = packed_attention(*inputs, Packing(torch.tensor(lengths)), causal=causal)
    expected = plain(*inputs, lengths, causal)
    assert_close(attended, expected)
    upstream = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(attended, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        assert_close(ours, theirs)


@pytest.mark.parametrize("causal", [True, False])
def test_long_images_of_a_cpu_are_not_padded_and_give_the_same(causal):
    lengths = [40, 3, 70]
    inputs, packing = operands(sum(lengths)), Packing(torch.tensor(lengths))
    attended = packed_attention(*inputs, packing, causal=causal)
    expected = plain(*inputs, lengths, causal)
    assert_close(attended, expected)
    upstream = torch.randn_like(expected)
    assert_close(torch.autograd.grad(attended, inputs, upstream), torch.autograd.grad(expected, inputs, upstream))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precision_stays_within_its_rounding(dtype, tolerance):
    lengths = [3, 7, 1]
    inputs = operands(sum(lengths), dtype)
    attended = packed_attention(*inputs, Packing(torch.tensor(lengths)))
    assert attended.dtype == dtype
    assert_close(attended.double(), plain(*inputs, lengths), rtol=tolerance, atol=tolerance)


def test_dropout_drops_and_keeps_the_mean():
    inputs = [tensor.detach() for tensor in operands(6)]
    packing = Packing(torch.tensor([2, 4]))
    drawn = torch.stack([packed_attention(*inputs, packing, 0.5) for _ in range(300)])
    assert not torch.equal(drawn[0], drawn[1])
    # the standard deviation of the mean of 300 is below 0.1
    assert_close(drawn.mean(0), packed_attention(*inputs, packing), rtol=0, atol=0.5)


def test_packing_says_where_images_lie():
    packing = Packing(torch.tensor([2, 3]))
    assert packing.cu_seqlens.tolist() == [0, 2, 5]
    assert packing.images.tolist() == [0, 0, 1, 1, 1]
    assert packing.steps.tolist() == [0, 1, 0, 1, 2]
    assert packing.padded_slots.tolist() == [0, 1, 3, 4, 5]
    assert Packing(torch.tensor([2, 2])).padded_slots is None


def fresh(monkeypatch, module=None):
    """No kernel has been tried yet; xformers is what is given."""
    monkeypatch.setattr(attention, "_xformers", lambda: module)
    monkeypatch.setattr(attention, "_tried", functools.cache(attention._tried.__wrapped__))


def test_the_cpu_is_served_by_pytorch():
    for dtype in (torch.float32, torch.bfloat16):
        assert backend("auto", "cpu", dtype, 8) is backend("sdpa", "cpu", dtype, 8) is sdpa_attention


def served(query, key, value, attn_bias, p):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


def unserved(query, key, value, attn_bias, p):
    raise NotImplementedError("No operator found for `memory_efficient_attention_forward`\nmuch more")


MASK = SimpleNamespace(BlockDiagonalCausalMask=SimpleNamespace(from_seqlens=lambda lengths, device: None))


@pytest.mark.parametrize(
    ("kernel", "module", "dropout", "reason"),
    [
        (
            "xformers",
            SimpleNamespace(attn_bias=MASK, memory_efficient_attention=unserved),
            False,
            "No operator found for `memory_efficient_attention_forward`",
        ),
        ("xformers", None, False, r"xformers with its kernels is not installed: pip install 'vltok\[cuda\]'"),
        ("varlen", None, True, "it drops no attention weights"),
        ("varlen", None, False, "Could not run 'aten::_flash_attention_forward' [^.]*"),
    ],
)
def test_where_a_kernel_is_not_to_be_had_pytorch_serves_and_one_line_says_so(
    kernel, module, dropout, reason, monkeypatch
):
    fresh(monkeypatch, module)
    with warnings.catch_warnings(record=True) as said, torch.inference_mode():
        for _ in range(3):
            assert backend(kernel, "cpu", torch.bfloat16, 48, dropout) is sdpa_attention
    (line,) = [str(each.message) for each in said]
    what = "bfloat16 in heads of 48" + (" with dropout" if dropout else "")
    assert re.fullmatch(rf"{kernel} has no attention for {what} on cpu \({reason}\): PyTorch's own serves", line)


def test_where_a_kernel_is_to_be_had_it_serves_and_is_logged_once(monkeypatch, caplog):
    fresh(monkeypatch, SimpleNamespace(attn_bias=MASK, memory_efficient_attention=served))
    before = torch.get_rng_state()
    with caplog.at_level("INFO", "vltok.nn.attention"):
        for _ in range(2):
            assert backend("xformers", "cpu", torch.float32, 8, True) is attention.xformers_attention
    assert torch.equal(torch.get_rng_state(), before)
    assert caplog.messages == ["attention of float32 in heads of 8 with dropout on cpu by xformers"]


def test_releases_of_xformers_without_kernels_are_as_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", ModuleType("xformers"))
    ops = ModuleType("xformers.ops")
    ops.fmha = ModuleType("xformers.ops.fmha")
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    assert attention._xformers.__wrapped__() is None
    ops.fmha.memory_efficient_attention = served
    assert attention._xformers.__wrapped__() is ops.fmha


@pytest.mark.parametrize(
    ("xformers", "works", "dtype", "dropout", "serving"),
    [
        (True, {"xformers", "varlen"}, torch.bfloat16, False, attention.xformers_attention),
        (True, {"xformers", "varlen"}, torch.float32, True, attention.xformers_attention),
        (True, {"varlen"}, torch.float16, False, attention.varlen_attention),
        (False, {"varlen"}, torch.bfloat16, False, attention.varlen_attention),
        (False, {"varlen"}, torch.bfloat16, True, sdpa_attention),
        (False, {"varlen"}, torch.float32, False, sdpa_attention),
        (True, set(), torch.bfloat16, False, sdpa_attention),
    ],
)
def test_on_cuda_the_first_kernel_that_is_to_be_had_serves(xformers, works, dtype, dropout, serving, monkeypatch):
    fresh(monkeypatch, object() if xformers else None)
    monkeypatch.setattr(attention, "_tried", lambda kernel, *_: kernel in works or kernel == "sdpa")
    assert backend("auto", "cuda", dtype, 64, dropout) is serving


@pytest.mark.parametrize("causal", [True, False])
def test_varlen_keeps_images_apart_and_codes_from_seeing_later_ones_if_asked_to(monkeypatch, causal):
    lengths = [3, 1, 4]
    inputs = [tensor.detach() for tensor in operands(sum(lengths))]

    def reference(query, key, value, starts, key_starts, longest, longest_key, *, window_size):
        assert starts is key_starts
        assert window_size == ((-1, 0) if causal else (-1, -1))
        assert longest == longest_key == max(lengths)
        assert starts.dtype == torch.int32
        return plain(query, key, value, starts.diff().tolist(), causal)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference)
    packing = Packing(torch.tensor(lengths))
    expected = sdpa_attention(*inputs, packing, 0.0, causal)
    assert_close(attention.varlen_attention(*inputs, packing, 0.0, causal), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_xformers_gets_the_mask_that_keeps_images_apart_and_hides_later_codes_if_asked_to(monkeypatch, causal):
    lengths = [3, 1, 4]
    inputs = [tensor.detach() for tensor in operands(sum(lengths))]

    def reference(query, key, value, attn_bias, p):
        return plain(query[0], key[0], value[0], *attn_bias)[None]

    def mask(causal):
        return SimpleNamespace(from_seqlens=lambda lengths, device: (lengths, causal))

    masks = SimpleNamespace(BlockDiagonalCausalMask=mask(True), BlockDiagonalMask=mask(False))
    fresh(monkeypatch, SimpleNamespace(attn_bias=masks, memory_efficient_attention=reference))
    packing = Packing(torch.tensor(lengths))
    expected = sdpa_attention(*inputs, packing, 0.0, causal)
    assert_close(attention.xformers_attention(*inputs, packing, 0.0, causal), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_varlen_takes_and_gives_packed_sequences_on_a_fake_device(device, dtype):
    packing = Packing(torch.tensor([3, 1, 4]))
    with FakeTensorMode():
        packing.cu_seqlens = torch.zeros(4, dtype=torch.int32, device=device)
        inputs = operands(8, dtype, device)
        attended = attention.varlen_attention(*inputs, packing, 0.0)
        assert (attended.shape, attended.dtype, attended.device.type) == ((8, HEADS, WIDTH), dtype, device)
        if device == "cpu":  # autograd asks CUDA's driver before it goes back
            for gradient in torch.autograd.grad(attended.sum(), inputs):
                assert (gradient.shape, gradient.dtype) == ((8, HEADS, WIDTH), dtype)


if find_spec("xformers"):

    def test_xformers_mask_is_block_diagonal_and_causal():
        mask = Packing(torch.tensor([2, 3])).causal_mask.materialize((5, 5))
        images = torch.tensor([0, 0, 1, 1, 1])
        visible = (images[:, None] == images) & torch.ones(5, 5, dtype=torch.bool).tril()
        assert torch.equal(mask == 0, visible)


@pytest.mark.cuda
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel", ["auto", "xformers", "varlen", "sdpa"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 3e-2)])
def test_kernels_agree_on_a_gpu(kernel, dtype, tolerance, causal):
    lengths = [5, 130, 17]
    inputs = [torch.randn(sum(lengths), 2, 64, dtype=dtype, device="cuda", requires_grad=True) for _ in range(3)]
    packing = Packing(torch.tensor(lengths, device="cuda"))
    attended = packed_attention(*inputs, packing, kernel=kernel, causal=causal)
    expected = plain(*inputs, lengths, causal)
    assert_close(attended.double(), expected, rtol=tolerance, atol=tolerance)
    upstream = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(attended, inputs, upstream.to(dtype)),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        assert_close(ours.double(), theirs.double(), rtol=10 * tolerance, atol=10 * tolerance)
