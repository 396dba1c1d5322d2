"""Large blocks come from what was freed inside the block alone, and go back afterwards."""

import ctypes

import pytest
import torch

from vltok.nn.memory import kept_memory


class Used(ctypes.Structure):
    """glibc's `struct mallinfo`, whose fourth number is that of the blocks that are mapped one by one."""

    _fields_ = (("numbers", ctypes.c_int * 10),)


def mapped() -> int:
    """Blocks that are mapped one by one for a large tensor."""
    info = ctypes.CDLL(None).mallinfo
    info.restype = Used
    before = info().numbers[3]
    large = torch.empty(2**25)
    found = info().numbers[3] - before
    del large
    return found


def test_large_blocks_are_mapped_outside_alone() -> None:
    for _ in range(2):
        assert mapped() == 1
        with kept_memory():
            assert mapped() == 0
    with pytest.raises(KeyError), kept_memory():
        raise KeyError
    assert mapped() == 1


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_other_c_libraries_stay_as_they_are(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: None) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", load)
    with kept_memory():
        torch.ones(2)
