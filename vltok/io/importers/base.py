"""What every importer of another project's checkpoints does."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vltok.io.importers.checkpoints import load_config, load_tensors


@dataclass(frozen=True, eq=False)
class Imported:
    """A checkpoint in vltok's words.

    Attributes:
        config: The model as a recipe describes it: `class_path`, by registered names, and `init_args`.
        state: The state dict of the model that the configuration describes.
        dropped: The checkpoint's tensors that it has no place for, such as those of training losses.
        kind: What the model is.
        original_names: The checkpoint's name of a tensor, or of the module that holds it, by vltok's; for messages.
        assumed: What the checkpoint does not say, and was taken to be; a sentence each.
        tokenizer: Gives the tokenizer that a prior's checkpoint carries along, if it does.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    kind: Literal["tokenizer", "prior"] = "tokenizer"
    original_names: Mapping[str, str] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    tokenizer: "Callable[[], Imported] | None" = None


class Importer(ABC):
    """Reads checkpoints of another project. Tensors are renamed and reshaped; their values stay."""

    @abstractmethod
    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a checkpoint is one of the project's, by the names and the shapes of its tensors."""

    @abstractmethod
    def convert(self, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Imported:
        """Translate a configuration and a state dict.

        Args:
            config: The project's own configuration of the model; empty where there is none.
            state: The checkpoint's tensors by name.
            folder: Where the configuration lies; files that it names are looked for there and in the folders above.

        Raises:
            UserError: Something is of a kind that vltok has no counterpart of, a tensor is not known, or what the
                tensors do not tell is in no configuration.
        """

    def read(self, checkpoint: str | Path, config: str | Path | None = None) -> Imported:
        """Read a checkpoint and its configuration from files; nothing in them is executed.

        Args:
            checkpoint: A file that `torch.save` wrote, or a safetensors file.
            config: The project's YAML or JSON file.

        Raises:
            UserError: A file cannot be read safely, or `convert` refuses what it holds.
        """
        content = {} if config is None else load_config(config)
        folder = Path(checkpoint if config is None else config).resolve().parent
        return self.convert(content, load_tensors(checkpoint), folder)
