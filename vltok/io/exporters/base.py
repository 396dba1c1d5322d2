"""What every exporter to another library does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from vltok.io.bundle_files import Kind


class Exporter(ABC):
    """Writes what a bundle holds as another library loads it.

    Attributes:
        kind: What it takes: ``tokenizer`` or ``prior``.
    """

    kind: ClassVar[Kind]

    @abstractmethod
    def write(self, model: nn.Module, bundle: Mapping[str, Any], folder: Path) -> None:
        """Write the library's files.

        Args:
            model: The tokenizer or the prior.
            bundle: What the `config.yaml` of its bundle says.
            folder: Where to write; it is there, and empty.

        Raises:
            UserError: The library has no counterpart of the model.
        """
