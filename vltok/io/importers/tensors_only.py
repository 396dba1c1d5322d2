"""Reading a pickle for its tensors alone: of whatever else it names nothing is imported, made or called."""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import IO, Any

import torch
from torch import Tensor
from torch.storage import TypedStorage


class _Unmade:
    """Stands where the pickle holds an object of any class, and takes whatever it would be filled with."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "_Unmade":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """A list would."""

    def extend(self, items: Iterable[Any]) -> None:
        """A list would."""

    def add(self, item: Any) -> None:
        """A set would."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What a name of the pickle means: the makers of tensors, or nothing.

        Each is a new function or class, since a pickle can set attributes of what it is given.
        """
        known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": lambda *given: _tensor(*given[:4]),
            "torch._utils._rebuild_tensor": lambda *given: _tensor(*given[:4]),
            "torch._utils._rebuild_parameter": lambda data, *_: data,
        }
        return known.get(f"{module}.{name}", type("Unmade", (_Unmade,), {}))


def _tensor(storage: TypedStorage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    # set_ looks whether the storage has as many bytes
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def load_tensors_only(file: IO[bytes]) -> Any:
    """The content of what `torch.save` wrote, with `_Unmade` for whatever is no tensor, number, text or container.

    Raises:
        Exception: Nearly any, where the file is damaged.
    """
    reader = ModuleType("tensors_only")
    vars(reader).update(Unpickler=_Unpickler, load=lambda file, **given: _Unpickler(file, **given).load())
    # of the two ways of torch.load, only the other one has a list of what it makes; here it is find_class
    return torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)  # nosec B614
