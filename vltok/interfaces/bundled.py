"""What travels as a bundle."""

from __future__ import annotations

import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, final

from torch import nn

from vltok.arguments import Configuration, KeepsArguments
from vltok.errors import UserError

_Model = TypeVar("_Model", bound="Bundled")


def package() -> Any:
    """The whole package, whose upper floors this one may not import: what it offers is found by name, as in a notebook.

    Bundles are written and read there; the methods here that say so too are for those who look for them on the object.
    """
    return sys.modules["vltok"]


class Bundled(KeepsArguments, nn.Module, ABC):
    """What travels as a bundle: a tokenizer or a prior.

    Attributes:
        config: What it was built from, as recipes have it: its `class_path` and `init_args`.
    """

    config = Configuration()
    #: What loads a bundle of its kind.
    _load: ClassVar[str]

    @final
    @classmethod
    def from_pretrained(cls: type[_Model], place: str | os.PathLike, **options: Any) -> _Model:
        """Load a bundle: a folder, or `user/name` of the Hugging Face Hub.

        The options are those of `vltok.load_tokenizer` and `vltok.load_prior`.

        Raises:
            UserError: As these, or the bundle holds a model of another class.
        """
        loaded = getattr(package(), cls._load)(place, **options)
        if not isinstance(loaded, cls):
            raise UserError(f"'{place}' holds a {type(loaded).__qualname__}, not a {cls.__qualname__}")
        return loaded

    @abstractmethod
    def save_pretrained(self, folder: str | os.PathLike, *args: Any, **options: Any) -> None:
        """Write a bundle."""

    @final
    def push_to_hub(self, repository: str, tokenizer: str | os.PathLike | None = None, **options: Any) -> str:
        """Write a bundle into a repository `user/name` of the Hugging Face Hub; the options are `vltok.push`'s.

        Args:
            repository: ``user/name``.
            tokenizer: For a prior, the bundle of the tokenizer whose codes it models; the Hub is told where it is if it
                is there.
            options: What else `vltok.push` takes.

        Returns:
            The address of the commit.

        Raises:
            UserError: As `vltok.push`, or there is no such tokenizer.
        """
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / repository.rpartition("/")[2]
            self.save_pretrained(bundle, *([] if tokenizer is None else [tokenizer]))
            return package().push(bundle, repository, **options)


class Standalone(ABC):
    """A tokenizer or prior whose recipe points at something outside of it, such as a pretrained model.

    Its bundle holds the weights, and must be all that is needed to build it.
    """

    @property
    @abstractmethod
    def standalone_arguments(self) -> Mapping[str, Any]:
        """The constructor's arguments that bundles give it in place of the recipe's: plain values, by name."""
