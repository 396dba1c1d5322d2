import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from vltok.nn import cached_attention
from vltok.nn.cached_attention import flash_decodes, flash_decoding
from vltok.nn.sequence_model import Cursors, KeyValueCache
from vltok.nn.transformer import Transformer

STEPS, HEADS, WIDTH, LONGEST = (0, 6, 2), 2, 8, 9


def cache_of(device: str = "cpu", dtype: torch.dtype = torch.float32) -> KeyValueCache:
    layers = [torch.randn(len(STEPS), LONGEST, 2 * HEADS, WIDTH, device=device, dtype=dtype) for _ in range(2)]
    return KeyValueCache([layer.transpose(1, 2) for layer in layers])


def plain(query: torch.Tensor, layer: torch.Tensor) -> torch.Tensor:
    """Image by image and head by head."""
    found = torch.empty_like(query)
    for image, step in enumerate(STEPS):
        keys, values = layer[image, :, : step + 1].double().chunk(2)
        weights = (keys @ query[image, :, :, None].double() / WIDTH**0.5).softmax(1)
        found[image] = (weights * values).sum(1)
    return found


def cursors(device: str = "cpu") -> Cursors:
    return Cursors.at(torch.tensor(STEPS, device=device), max(STEPS), LONGEST)


@pytest.mark.parametrize("reach", [((3, 7),), ((1, 4), (2, LONGEST)), ((1, 1), (1, 7), (1, 3))])
def test_each_image_sees_its_own_steps_alone(reach):
    cache, query = cache_of(), torch.randn(len(STEPS), HEADS, WIDTH)
    attending = cache.attending(Cursors.within(torch.tensor(STEPS), reach))
    for attend, layer in zip(attending, cache.layers, strict=True):
        assert_close(attend(query), plain(query, layer))


def test_images_change_rows():
    cache = cache_of()
    before = [layer.clone() for layer in cache.layers]
    places = [layer.data_ptr() for layer in cache.layers]
    for order in ([0, 1, 2], [0, 2, 1], [2, 0, 1]):
        cache.reorder(order)
        before = [layer[order] for layer in before]
        assert all(layer.equal(expected) for layer, expected in zip(cache.layers, before, strict=True))
    assert [layer.data_ptr() for layer in cache.layers] == places


def test_flash_decoding_reads_the_cache_where_it_lies(monkeypatch):
    """No step is copied: what the kernel is given are views of the cache."""
    cache, query = cache_of(), torch.randn(len(STEPS), HEADS, WIDTH)
    places = [layer.data_ptr() for layer in cache.layers]

    def reference(query, keys, values, starts, key_starts, longest, longest_key, *, seqused_k):
        assert starts.tolist() == [0, 1, 2, 3] and longest == 1
        assert key_starts.tolist() == [0, LONGEST, 2 * LONGEST, 3 * LONGEST] and longest_key == LONGEST
        assert {starts.dtype, key_starts.dtype, seqused_k.dtype} == {torch.int32}
        assert keys.data_ptr() in places and values.data_ptr() == keys.data_ptr() + 4 * HEADS * WIDTH
        attended = []
        for image, used in enumerate(seqused_k.tolist()):
            chosen = slice(image * LONGEST, image * LONGEST + used)
            weights = torch.einsum("hd,shd->hs", query[image], keys[chosen]).div(WIDTH**0.5).softmax(1)
            attended.append(torch.einsum("hs,shd->hd", weights, values[chosen]))
        return torch.stack(attended)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference)
    monkeypatch.setattr("vltok.nn.sequence_model.flash_decodes", lambda *_: True)
    for attend, layer in zip(cache.attending(cursors()), cache.layers, strict=True):
        assert_close(attend(query), plain(query, layer))


def test_flash_decoding_serves_where_a_trial_is_right(monkeypatch):
    monkeypatch.setattr(torch, "ones", lambda *shape, device, **how: torch.zeros(*shape, **how) + 1)
    monkeypatch.setattr(torch, "tensor", lambda values, device, **how: torch.Tensor(values).to(how["dtype"]))
    for used, serves in (([1.0, 8.0], True), ([3.0, 36.0], False)):
        monkeypatch.setattr(
            cached_attention, "flash_decoding", lambda query, *_, used=used: torch.Tensor(used)[:, None, None]
        )
        assert flash_decodes.__wrapped__("cuda", torch.bfloat16, 64) is serves
    monkeypatch.setattr(cached_attention, "flash_decoding", None)
    assert not flash_decodes.__wrapped__("cuda", torch.bfloat16, 64)


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.bfloat16), ("cuda", torch.float32)])
def test_flash_decoding_is_for_half_precision_on_cuda(device, dtype):
    assert not flash_decodes(device, dtype, 64)


def test_flash_decoding_on_a_fake_device():
    with FakeTensorMode():
        query = torch.empty(3, HEADS, WIDTH, dtype=torch.bfloat16, device="cuda")
        layer = torch.empty(3, LONGEST, 2 * HEADS, WIDTH, dtype=torch.bfloat16, device="cuda")
        keys, values = layer.flatten(0, 1).chunk(2, dim=1)
        used = torch.empty(3, dtype=torch.int32, device="cuda")
        attended = flash_decoding(query, keys, values, used, LONGEST)
        assert (attended.shape, attended.dtype, attended.device.type) == (query.shape, query.dtype, "cuda")


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 3e-2)])
def test_attention_over_a_cache_on_a_gpu(dtype, tolerance):
    model = Transformer(64, 2, 2, 0.0).to("cuda", dtype)
    cache = model.cache(len(STEPS), LONGEST)
    assert flash_decodes("cuda", dtype, 32) == (dtype != torch.float32)
    for layer in cache.layers:
        layer.normal_()
    query = torch.randn(len(STEPS), 2, 32, device="cuda", dtype=dtype)
    host = KeyValueCache([layer.float().cpu() for layer in cache.layers])
    there, here = cache.attending(cursors("cuda")), host.attending(cursors())
    for attend, expected in zip(there, here, strict=True):
        assert_close(attend(query).float().cpu(), expected(query.float().cpu()), rtol=tolerance, atol=tolerance)
