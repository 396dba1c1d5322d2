"""What every component with weights must hold, whatever its kind; and the pictures that contracts use."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vltok.testing.other_device import Cuda, another_device, tolerance
from vltok.testing.pretended_device import PretendedDevice

#: Steps of training within which every parameter must have had a gradient: a branch may start at zero, so that what
#: lies behind it has none in the first.
STEPS = 3

M = TypeVar("M", bound=nn.Module)


def pictures(images: int, height: int, width: int, seed: int = 0) -> Float[Tensor, "b 3 H W"]:
    """Drawn pictures in [-1, 1]: soft colors everywhere, and grain that grows from left to right.

    Args:
        images: How many.
        height: Of each, in pixels.
        width: Of each, in pixels.
        seed: Others for another one.
    """
    generator = torch.Generator().manual_seed(seed)
    soft = F.interpolate(torch.rand(images, 3, 3, 3, generator=generator), size=(height, width), mode="bilinear")
    grain = torch.rand(images, 3, height, width, generator=generator) - 0.5
    amount = torch.linspace(0, 1, width) * torch.linspace(0.2, 1, images).view(-1, 1, 1, 1)
    return ((2 * soft - 1) * 0.7 + grain * amount * 0.6).clamp(-1, 1)


def smallest_and_larger(divisor: int, given: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Sizes to try: one region and six of them, or the only one that is given."""
    return [(divisor, divisor), (2 * divisor, 3 * divisor)] if given is None else [given]


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a component's state."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_state(module: nn.Module, expected: dict[str, Tensor]) -> None:
    """Check that a component's state is still that of a snapshot."""
    assert_same(dict(module.state_dict()), expected)


def assert_same(
    found: Sequence[Tensor] | Mapping[str, Tensor], expected: Sequence[Tensor] | Mapping[str, Tensor]
) -> None:
    """Check that tensors are equal to the last digit."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


class ModuleContract(ABC, Generic[M]):
    """Tests of a component with a state, which the contract of its kind extends.

    Attributes:
        read_backs: How often a pass may make the host wait for a GPU; 0 keeps it busy.
    """

    read_backs: int = 0
    _device: str = "cpu"

    @pytest.fixture(autouse=True)
    def _seeded(self) -> None:
        torch.manual_seed(0)

    @abstractmethod
    def build(self) -> M:
        """A tiny component with fresh weights; the same arguments each time."""

    @abstractmethod
    def _respond(self, module: M) -> list[Tensor]:
        """What it gives for an input that is the same each time, once it is ready for use."""

    def test_evaluation_gives_the_same_again_and_changes_nothing(self):
        module = self.build().eval()
        self._respond(module)  # what is fetched or measured before the first use is there now
        before = snapshot(module)
        first = self._respond(module)
        torch.manual_seed(1)
        assert_same(self._respond(module), first)
        assert_state(module, before)

    def test_its_state_rebuilds_it(self):
        module, other = self.build(), self.build()
        self._respond(other.eval())
        self._respond(module.train())
        other.load_state_dict(snapshot(module.eval()), strict=True)
        assert_same(self._respond(other), self._respond(module))

    def test_it_answers_the_same_on_another_device(self):
        module = self.build().eval()
        expected = self._respond(module)
        with self._elsewhere(module) as device:
            found = [value.cpu() for value in self._respond(module)]
            torch.testing.assert_close(found, expected, **tolerance(device))
            device.forget()
            self._respond(module)
            self._assert_few_waits(device)

    def test_it_runs_in_mixed_precision(self):
        module = self.build().eval()
        with torch.autocast("cpu", torch.bfloat16):
            found = self._respond(module)
        assert all(value.isfinite().all() for value in found)

    @contextlib.contextmanager
    def _elsewhere(self, module: M) -> Iterator[Cuda | PretendedDevice]:
        """Another device, on which a component and its input are."""
        with another_device() as device:
            module.to(device.name)
            self._device = device.name
            device.forget()
            try:
                yield device
            finally:
                self._device = "cpu"

    def _there(self, value: Tensor) -> Tensor:
        """An input, where the component is."""
        return value.to(self._device, non_blocking=True)

    def _assert_few_waits(self, device: Cuda | PretendedDevice) -> None:
        """Check that the host waited no more often for the device than it may."""
        assert len(device.read_backs) <= self.read_backs, f"read back to the host: {'; '.join(device.read_backs)}"
        assert not device.uploads, f"copied to the device: {'; '.join(device.uploads)}"


class TrainableContract(ModuleContract[M]):
    """Tests of a component that is trained, which the contract of its kind extends."""

    @abstractmethod
    def _loss(self, module: M) -> Tensor:
        """A loss to train it by, in training mode."""

    def test_every_parameter_gets_a_gradient(self):
        """Other than zero, in the first steps of training."""
        module = self.build().train()
        missing = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        if not missing:
            return
        optimizer = torch.optim.Adam(missing.values(), lr=1e-3)
        for _ in range(STEPS):
            total = self._loss(module)
            assert total.dim() == 0 and total.isfinite(), "a loss is one finite number"
            if not missing or not total.requires_grad:
                break
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            for name, parameter in list(missing.items()):
                if parameter.grad is not None and parameter.grad.any():
                    assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
                    del missing[name]
        assert not missing, f"parameters that learn nothing: {', '.join(missing)}"

    def test_training_on_another_device_waits_for_nothing(self):
        module = self.build().train()
        self._loss(module)  # what is measured before the first use is there now
        with self._elsewhere(module) as device:
            loss = self._loss(module)
            if loss.requires_grad:
                loss.backward()
            self._assert_few_waits(device)

    def test_it_trains_in_mixed_precision(self):
        """By the CPU's rules, and by CUDA's, which differ."""
        module = self.build().train()
        self._assert_learns_in_mixed_precision(module)
        with self._elsewhere(module):
            self._assert_learns_in_mixed_precision(module)

    def _assert_learns_in_mixed_precision(self, module: M) -> None:
        with torch.autocast(self._device, torch.bfloat16):
            loss = self._loss(module)
        assert loss.isfinite()
        if loss.requires_grad:
            loss.backward()
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
