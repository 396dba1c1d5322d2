"""The names of millions of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

import numpy as np


@final
class Names:
    """Texts in one array, which worker processes share with the one that has forked them.

    A list would be copied into each of them: to look at a text counts who refers to it, in the text's own memory.

    Args:
        names: The texts; file names that are none, too.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._letters = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._starts = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        if index < 0:  # as those of lists, from the end
            index += len(self)
        start, end = self._starts[index], self._starts[index + 1]
        return self._letters[start:end].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
