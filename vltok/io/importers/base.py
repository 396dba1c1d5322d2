"""What every importer of another project's checkpoints does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vltok.io.importers.checkpoints import load_config, load_tensors


@dataclass(frozen=True, eq=False)
class Imported:
    """A checkpoint in vltok's words.

    Attributes:
        config: The tokenizer as a recipe describes it: `class_path`, by registered names, and `init_args`.
        state: The state dict of the tokenizer that the configuration describes.
        dropped: The checkpoint's tensors that it has no place for, such as those of training losses.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    dropped: tuple[str, ...]


class Importer(ABC):
    """Reads checkpoints of another project. Tensors are renamed and reshaped; their values stay."""

    @abstractmethod
    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate a configuration and a state dict.

        Args:
            config: The project's own configuration of the model.
            state: The checkpoint's tensors by name.
            folder: Where the configuration lies; files that it names are looked for there and in the folders above.

        Raises:
            UserError: Something is of a kind that vltok has no counterpart of, or a tensor is not known.
        """

    def read(self, checkpoint: str | Path, config: str | Path) -> Imported:
        """Read a checkpoint and its configuration from files; nothing in them is executed.

        Args:
            checkpoint: A file that `torch.save` wrote, or a safetensors file.
            config: The project's YAML file.

        Raises:
            UserError: A file cannot be read safely, or `convert` refuses what it holds.
        """
        return self.convert(load_config(config), load_tensors(checkpoint), Path(config).resolve().parent)
