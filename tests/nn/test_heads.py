"""Heads, and what targets cost by them."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from vltok.nn import heads
from vltok.nn.heads import Head


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_costs_in_parts_equal_those_at_once_and_so_do_their_gradients(monkeypatch, dtype):
    head = Head(8, 50)
    hidden = torch.randn(13, 8, requires_grad=True)
    targets, weights = torch.randint(50, (13,)), torch.rand(13)
    found = []
    for at_once in (13 * 50, 4 * 50, 1):
        monkeypatch.setattr(heads, "LOGITS_AT_ONCE", at_once)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            nats = head.nats(hidden, targets)
        assert nats.dtype == torch.float32
        found.append((nats, *torch.autograd.grad((nats * weights).sum(), [hidden, *head.parameters()])))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for parts in found[1:]:
        assert_close(parts, found[0], **tolerance)
    if dtype == torch.float32:
        assert_close(found[0][0], F.cross_entropy(head(hidden), targets, reduction="none"))


def test_no_more_logits_are_kept_than_fit_at_once(monkeypatch):
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", 4 * 50)
    head, kept = Head(8, 50), []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        head.nats(torch.randn(64, 8, requires_grad=True), torch.zeros(64, dtype=torch.long))
    assert max(kept) < 64 * 50
