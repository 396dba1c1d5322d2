import pytest
import torch

from vltok.verbs.devices import choose_device


@pytest.mark.parametrize(
    ("wanted", "chosen"), [(None, "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cpu", "cpu")]
)
def test_each_process_gets_its_own_gpu(wanted: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    assert choose_device(wanted, local_rank=3) == chosen
