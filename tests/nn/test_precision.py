"""The precision of arithmetic."""

import contextlib

import pytest
import torch

from vltok.nn.precision import computing, full_float32

BACKENDS = torch.backends


def settings() -> list[object]:
    """Every switch of the older and the newer kind, None where PyTorch does not tell."""
    found: list[object] = [BACKENDS.cudnn.benchmark, BACKENDS.cudnn.deterministic]
    for read in (lambda: BACKENDS.cudnn.allow_tf32, torch.get_float32_matmul_precision):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    parts = (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.mkldnn.matmul)
    return found + [part.fp32_precision for part in (BACKENDS, *parts)]


def assert_full() -> None:
    assert not BACKENDS.cudnn.allow_tf32 and not BACKENDS.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    parts = (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.mkldnn.matmul)
    assert {part.fp32_precision for part in parts} == {"ieee"}


@contextlib.contextmanager
def allowed(convolutions: bool, products: str):
    before = BACKENDS.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    BACKENDS.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)
    try:
        yield
    finally:
        BACKENDS.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize("before", [(True, "high"), (True, "highest"), (False, "medium")])
def test_float32_is_full_inside_and_as_before_outside(before: tuple[bool, str]) -> None:
    with allowed(*before):
        outside = settings()
        with pytest.raises(ZeroDivisionError), full_float32():
            assert_full()
            with full_float32():
                assert_full()
            # what another library may do inside
            with BACKENDS.cudnn.flags(enabled=True, allow_tf32=False):
                pass
            assert not BACKENDS.cudnn.allow_tf32
            raise ZeroDivisionError
        assert settings() == outside


def test_the_newer_switch_for_all_backends_does_not_overrule_it() -> None:
    parts = (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn)
    before = BACKENDS.fp32_precision, [part.fp32_precision for part in parts]
    try:
        BACKENDS.fp32_precision = "tf32"
        for part in parts:
            part.fp32_precision = "tf32"
        outside = settings()
        with full_float32():
            assert {part.fp32_precision for part in parts} == {"ieee"}
        assert settings() == outside
    finally:
        BACKENDS.fp32_precision = before[0]
        for part, precision in zip(parts, before[1], strict=True):
            part.fp32_precision = precision


def test_a_precision_is_computed_in_and_the_same_numbers_come_out_again() -> None:
    outside = settings()
    weight = torch.ones(4, 4)
    with torch.autocast("cpu", torch.float16):
        for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            with computing("cpu", precision):
                assert (weight @ weight).dtype == dtype
                assert BACKENDS.cudnn.deterministic and not BACKENDS.cudnn.benchmark
                assert_full()
        assert (weight @ weight).dtype == torch.float16
    assert settings() == outside
