"""Processes that share an evaluation."""

import pytest
import torch
from torch import distributed

from vltok.errors import UserError
from vltok.evaluation.gathering import gather, joined


def test_one_process_needs_no_others():
    with joined(0, 1, "cpu"):
        assert gather([3, 4]) == [3, 4]


def test_several_need_what_torchrun_sets(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="only under torchrun"), joined(0, 2, "cpu"):
        pass


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cuda:1", ["cuda:1", "nccl"]),
        ("cuda", ["nccl"]),
        ("cpu", ["gloo"]),
    ],
)
def test_each_process_gathers_on_its_own_gpu(monkeypatch, device, expected):
    calls = []
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(torch.cuda, "set_device", lambda chosen: calls.append(str(chosen)))
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, **_: calls.append(backend))
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    with joined(1, 2, device):
        assert calls == expected
