"""A device that is none: what only a GPU would show, without one.

```python
from vltok.testing import PretendedDevice

with PretendedDevice() as device:
    model.to(device.name)(images.to(device.name)).sum().backward()
assert not device.read_backs
```
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from vltok.errors import UserError
from vltok.testing import pretended_precision

_aten = torch.ops.aten
_NAME = "pretended"
#: Copies, the only operations that may join two devices.
_COPIES = (_aten._to_copy.default, _aten.copy_.default)
#: Those whose indices may lie on the host, from where they are copied.
_INDEXED = (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_)
#: Operations of CUDA that wait for the device, though neither the shape nor the type of what they give says so.
_WAITING = (_aten.multinomial, _aten._linalg_check_errors)
_DOUBLE = (torch.float64, torch.complex128)
#: Where this file's and PyTorch's own code stand, which are never to blame.
_BETWEEN = (__file__, str(Path(torch.__file__).parent))
_metadata: Any = Tensor.data
#: The device that is in use: PyTorch knows one of the kind in a process.
_in_use: list[PretendedDevice] = []


class PretendedDevice(TorchDispatchMode):
    """A device for PyTorch, such as ``cuda``, that computes on the CPU. It exists inside a ``with`` block.

    As on CUDA, an operation on tensors of two devices raises `RuntimeError`, unless one of them is a number without
    axes, and NumPy does not take its tensors. Automatic mixed precision follows CUDA's rules.

    Args:
        double_precision: Whether it has float64; without, as on Apple's ``mps``, tensors of it raise `TypeError`.

    Attributes:
        name: What PyTorch calls it: ``pretended``.
        read_backs: Every time that the host waited for a result of the device: `item`, `tolist`, `cpu`, a shape that
            depends on values. Each says which operation it was, and where.
        uploads: Every time that the host waited to copy something to the device: `torch.tensor(…, device=…)`, indices
            that lie on the host, and `to(…)` without ``non_blocking``.

    Raises:
        UserError: Another one is in use, or PyTorch has a device of this kind already.
    """

    name = _NAME

    def __init__(self, *, double_precision: bool = True) -> None:
        super().__init__()
        self.double_precision = double_precision
        self.read_backs: list[str] = []
        self.uploads: list[str] = []
        self._threads = contextlib.ExitStack()

    def forget(self) -> None:
        """Count from here."""
        self.read_backs.clear()
        self.uploads.clear()

    def __enter__(self) -> PretendedDevice:
        if _in_use:
            raise UserError("a pretended device is in use already: PyTorch knows one in a process")
        _register()
        _in_use.append(self)
        # PyTorch would run backward passes of a device in a thread of its own, made before it knew of this one
        self._threads.enter_context(torch.autograd.set_multithreading_enabled(False))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._threads.close()
        _in_use.remove(self)

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.run(function, args, kwargs or {})

    def run(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """One of PyTorch's operations, some of whose tensors may lie on the device."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        held = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, _OnDevice)}
        device = kwargs.get("device")
        there = bool(held) if device is None else torch.device(device).type == _NAME
        if not held and not there:
            return function(*args, **kwargs)
        self._check_devices(function, args, tensors, there, kwargs.get("generator"))
        self._count(function, args, kwargs, there)
        found = function(*tree_map(_to_host, args), **tree_map(_to_host, kwargs))
        if torch.Tag.inplace_view in function.tags:
            with no_dispatch():  # the tensor of the device gets the shape of the one that it holds
                function(*args, **kwargs)
        return tree_map(lambda value: self._given(value, held), found) if there else found

    def held(self, tensor: Tensor) -> Tensor:
        """A tensor of the host as one of the device; they share memory.

        Raises:
            TypeError: The device has no numbers of its type.
        """
        if tensor.dtype in _DOUBLE and not self.double_precision:
            raise TypeError(f"the device {_NAME} has no {tensor.dtype}, as mps has none")
        return _OnDevice(tensor)

    def note_upload(self, function: object) -> None:
        """Note that the host waits to copy something to the device."""
        self.uploads.append(_told(function))

    def _given(self, value: Any, held: Mapping[int, Tensor]) -> Any:
        """What an operation gives, on the device; what it was given and has changed stays the tensor that it was."""
        if not isinstance(value, Tensor):
            return value
        return held[id(value)] if id(value) in held else self.held(value)

    def _check_devices(
        self, function: Any, args: Sequence[Any], tensors: Sequence[Tensor], there: bool, generator: Any
    ) -> None:
        """See that all that an operation is given is on one device.

        Raises:
            RuntimeError: It is not.
        """
        if generator is not None and there:
            raise RuntimeError(f"Expected a '{_NAME}' device type for generator but found '{generator.device}'")
        if function in _COPIES:
            return
        if function.overloadpacket in _INDEXED:
            tensors = [args[0], *(tensor for tensor in (*args[1], *args[2:]) if isinstance(tensor, _OnDevice))]
        elsewhere = {str(tensor.device) for tensor in tensors if not isinstance(tensor, _OnDevice) and tensor.dim()}
        if elsewhere and any(isinstance(tensor, _OnDevice) for tensor in tensors):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {_NAME}:0 and "
                f"{', '.join(elsewhere)}! ({function})"
            )

    def _count(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], there: bool) -> None:
        if function in _COPIES:
            source = args[0] if function is _COPIES[0] else args[1]
            target = there if function is _COPIES[0] else isinstance(args[0], _OnDevice)
            waits = not kwargs.get("non_blocking") and not (len(args) > 2 and args[2])
            if isinstance(source, _OnDevice) and not target:
                self.read_backs.append(_told(function))
            elif target and not isinstance(source, _OnDevice) and source.dim() and waits:
                self.note_upload(function)
        elif function.overloadpacket in _INDEXED:
            indices = [index for index in args[1] if index is not None]
            masked = any(index.dtype in (torch.bool, torch.uint8) and isinstance(index, _OnDevice) for index in indices)
            # a number is written through a mask without a look at it
            number = len(args) > 2 and not args[2].dim()
            if masked and not number:
                self.read_backs.append(_told(function))
            if any(not isinstance(index, _OnDevice) for index in indices) and isinstance(args[0], _OnDevice):
                self.note_upload(function)
        elif _waits(function) and kwargs.get("output_size") is None:
            self.read_backs.append(_told(function))


def _run(function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """In threads where no device is in use, and after its block."""
    return (_in_use[0] if _in_use else PretendedDevice()).run(function, args, kwargs or {})


class _OnDevice(Tensor):
    """A tensor of the device, which holds one of the host."""

    held: Tensor
    __torch_dispatch__: Any = staticmethod(_run)
    __repr__: Any = lambda tensor, **_: f"{tensor.held!r} on {_NAME}:0"

    @staticmethod
    def __new__(cls, held: Tensor) -> _OnDevice:
        with torch.inference_mode(False):  # a view of a tensor from elsewhere is none of inference, even there
            tensor = Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                layout=held.layout,
                device=torch.device(_NAME, 0),
            )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What is made of it is what `__torch_dispatch__` makes of it."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, tensor: Any) -> None:
        _metadata.__set__(self, tensor)
        self.held = tensor.held

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(
                f"can't convert {_NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
                "memory first."
            )
        return self.cpu().numpy()

    def __format__(self, specification: str) -> str:
        return format(self.item(), specification) if not self.dim() else repr(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Written to a file, it is one of the host."""
        return self.detach().cpu().__reduce_ex__(protocol)


class _Module(backend_registration._DummyBackendModule):
    """What PyTorch asks of `torch.pretended`."""

    def is_available(self) -> bool:
        return bool(_in_use)

    def device_count(self) -> int:
        return len(_in_use)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Hook(backend_registration._DummyPrivateUse1Hook):
    """What PyTorch's own code asks of it: other tests of the process must not take it for a GPU."""

    def is_available(self) -> bool:
        return bool(_in_use)


@functools.cache
def _register() -> tuple[torch.library.Library, ...]:
    """Tell PyTorch of the device, once in a process; what is given back must stay.

    Raises:
        UserError: PyTorch has a device of this kind already.
    """
    try:
        backend_registration._setup_privateuseone_for_python_backend(_NAME, _Module(), _Hook())
    except RuntimeError as error:
        raise UserError(f"PyTorch has a device of this kind already: {error}") from error
    kernels = torch.library.Library("aten", "IMPL")
    # of what PyTorch makes of numbers, no dispatch mode hears
    kernels.impl("empty_strided", _empty, "PrivateUse1")
    kernels.impl("_copy_from", _copy, "PrivateUse1")
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return kernels, others, pretended_precision.register()


def _empty(size: Sequence[int], stride: Sequence[int], dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return _in_use[0].held(torch.empty_strided(size, stride, dtype=dtype))


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _in_use[0].note_upload("torch.tensor")
    _to_host(target).copy_(_to_host(source))
    return target


def _to_host(value: Any) -> Any:
    if isinstance(value, _OnDevice):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == _NAME else value


@functools.cache
def _waits(function: Any) -> bool:
    """Whether the host must know values of the device for an operation."""
    tags = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
    return function.overloadpacket in _WAITING or any(tag in function.tags for tag in tags)


def _told(function: object) -> str:
    """An operation, and where it was called for."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame = frame.f_back
    return f"{function} in {frame.f_code.co_filename}:{frame.f_lineno}"
