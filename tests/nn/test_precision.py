"""The precision of arithmetic."""

import pytest
import torch

from vltok.nn.precision import full_float32


def settings() -> tuple[bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("before", [(True, "high"), (True, "highest"), (False, "medium")])
def test_float32_is_full_inside_and_as_before_outside(before):
    outside = settings()
    try:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])
        with pytest.raises(ZeroDivisionError), full_float32():
            assert settings() == (False, "highest")
            raise ZeroDivisionError
        assert settings() == before
    finally:
        torch.backends.cudnn.allow_tf32 = outside[0]
        torch.set_float32_matmul_precision(outside[1])
