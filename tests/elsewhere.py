"""Training on a device other than the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry, CUDAAccelerator
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

from vltok.testing import PretendedDevice
from vltok.testing.other_device import Cuda


class Pretended(Accelerator):
    """Lightning's view of the device."""

    @staticmethod
    def name() -> str:
        return PretendedDevice.name

    def setup_device(self, device: torch.device) -> None:
        pass

    def teardown(self) -> None:
        pass

    @staticmethod
    def parse_devices(devices: object) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: int) -> list[torch.device]:
        return [torch.device(PretendedDevice.name, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    def get_device_stats(self, device: object) -> dict:
        return {}


def strategy_on(device: Cuda | PretendedDevice) -> SingleDeviceStrategy:
    """Lightning's way to train there in mixed precision: left to choose, it trains on the CPU where it knows of no
    GPU."""
    accelerator = CUDAAccelerator() if isinstance(device, Cuda) else Pretended()
    precision = MixedPrecision("bf16-mixed", device.name)
    return SingleDeviceStrategy(torch.device(device.name, 0), accelerator, precision_plugin=precision)


def without_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm's average draw its random numbers on the host: Python cannot make a generator of a device."""
    known: dict[str, Any] = {**vars(torch), "Generator": lambda device: torch.Generator()}
    monkeypatch.setattr(timm.utils.model_ema, "torch", SimpleNamespace(**known))


def train_on(device: Cuda | PretendedDevice, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let Lightning's Trainer know a device by the name that is given back."""
    if isinstance(device, Cuda):
        return "gpu"
    without_generator(monkeypatch)
    monkeypatch.setitem(AcceleratorRegistry, device.name, {"accelerator": Pretended, "init_params": {}})
    monkeypatch.setattr(_AcceleratorConnector, "_choose_strategy", lambda connector: strategy_on(device))
    return device.name
