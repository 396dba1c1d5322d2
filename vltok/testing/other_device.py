"""The device other than the CPU on which contracts try what they are given."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import Any

import torch

from vltok.testing.pretended_device import PretendedDevice


class Cuda:
    """A GPU, inside a ``with`` block, watched as `PretendedDevice` is.

    Attributes:
        name: ``cuda``.
        uploads: Always empty: PyTorch counts them among the next.
    """

    name = "cuda"
    uploads: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._warnings: list[warnings.WarningMessage] = []
        self._inside = contextlib.ExitStack()

    @property
    def read_backs(self) -> list[str]:
        """Every time that the host waited for the device, as PyTorch tells it."""
        return [
            f"{each.filename}:{each.lineno}" for each in self._warnings if "synchronizing CUDA" in str(each.message)
        ]

    def forget(self) -> None:
        """Count from here."""
        self._warnings.clear()

    def __enter__(self) -> Cuda:
        # TensorFloat-32 keeps ten digits of a product's factors, too few to compare with the CPU
        convolutions = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        self._inside.callback(setattr, torch.backends.cudnn, "allow_tf32", convolutions)
        self._warnings = self._inside.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        self._inside.callback(torch.cuda.set_sync_debug_mode, "default")
        return self

    def __exit__(self, *error: Any) -> None:
        self._inside.close()


def another_device() -> Cuda | PretendedDevice:
    """A GPU where the environment has ``VLTOK_TEST_DEVICE=cuda``, else a pretended one without double precision."""
    if os.environ.get("VLTOK_TEST_DEVICE") == "cuda":
        return Cuda()
    return PretendedDevice(double_precision=False)


def tolerance(device: Cuda | PretendedDevice) -> dict[str, float]:
    """How near what a device computes in float32 is to what the CPU does, as `torch.testing.assert_close` takes it."""
    return {"rtol": 1e-3, "atol": 1e-4} if isinstance(device, Cuda) else {}
