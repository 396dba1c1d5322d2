"""Pictures to look at, with what was made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vltok.code_files import TENSORS
from vltok.codes import Codes

_PIXELS = ("image", "result", "fixed")


@dataclass(frozen=True, eq=False)
class Example:
    """A picture to look at.

    Attributes:
        key: What its source calls it, or the number of a drawn one.
        image: The picture; None where it was drawn.
        result: What was decoded: its reconstruction, or what was drawn.
        codes: Its codes, a batch of one; None for a codec.
        figures: What was measured on it.
        fixed: What a code of fixed length made of it, where there is one to compare with.
    """

    key: str
    image: UInt8[Tensor, "3 H W"] | None
    result: UInt8[Tensor, "3 H W"]
    codes: Codes | None
    figures: Mapping[str, float]
    fixed: UInt8[Tensor, "3 H W"] | None = None

    def to_plain(self) -> dict[str, Any]:
        """As plain values and NumPy arrays."""
        codes = None
        if self.codes is not None:
            tensors = {name: getattr(self.codes, name) for name in TENSORS}
            codes = {name: _array(tensor) for name, tensor in tensors.items()} | {"texts": self.codes.texts}
        pixels = {name: _array(getattr(self, name)) for name in _PIXELS}
        return {"key": self.key, "codes": codes, "figures": dict(self.figures), **pixels}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Example:
        """What `to_plain` gave."""
        codes, given = None, plain["codes"]
        if given is not None:
            tensors = {name: _tensor(given[name]) for name in TENSORS}
            codes = Codes(**tensors, texts=given["texts"])
        pixels = {name: _tensor(plain[name]) for name in _PIXELS}
        return cls(key=plain["key"], codes=codes, figures=plain["figures"], **pixels)


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.cpu().numpy()


def _tensor(array: np.ndarray | None) -> Any:
    return None if array is None else torch.from_numpy(array)
