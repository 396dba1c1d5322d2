"""What verbs are given: a tokenizer, a prior or pictures, as objects or as what names them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from safetensors.torch import save
from torch import nn

from vltok.errors import UserError
from vltok.interfaces import Bundled, Prior, Tokenizer
from vltok.io.bundles import class_names, fingerprint, load_prior, load_tokenizer, prior_fingerprint
from vltok.io.places import find_tokenizer
from vltok.io.recipes import instantiate, parse_tree, recipe_parser
from vltok.nn.convolutions import packed_convolutions
from vltok.nn.memory import kept_memory
from vltok.nn.modes import evaluating
from vltok.pictures.images import ImageData
from vltok.verbs.devices import choose_device

Model = TypeVar("Model", bound=Bundled)

#: Arguments of data on which no picture depends.
_OF_SPEED = ("workers", "batch_size", "copies", "copies_gb")


@dataclass(frozen=True, eq=False)
class Opened(Generic[Model]):
    """A tokenizer or a prior in evaluation mode.

    Attributes:
        model: On `device`.
        name: Its bundle's place, or for an object its class.
        fingerprint: By which codes name it: its bundle's, or for an object that of its weights.
        device: Where it computes.
        class_names: The names of a prior's classes, where its bundle tells them.
    """

    model: Model
    name: str
    fingerprint: str
    device: str
    class_names: tuple[str, ...] | None = None

    @property
    def subject(self) -> dict[str, Any]:
        """What a record says of it."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {"path": self.name, "fingerprint": self.fingerprint, "parameters": parameters}


@contextlib.contextmanager
def open_tokenizer(
    given: Tokenizer | str | os.PathLike, device: str | None, *, trust: bool = False, local_rank: int = 0
) -> Iterator[Opened[Tokenizer]]:
    """Load a bundle, or take a tokenizer as it is, which is in the mode in which it was again afterwards.

    Its weights must not change inside the block: those of convolutions on the CPU are packed.

    Args:
        given: The tokenizer, or its bundle's place.
        device: Where to compute; by default where an object is, and for a bundle a GPU where there is one.
        trust: See `load_tokenizer`.
        local_rank: Which of this machine's processes this is: each gets another GPU.

    Raises:
        UserError: There is no such device, or the bundle cannot be loaded.
    """
    if isinstance(given, Tokenizer):
        with evaluating(given):
            opened = _taken(given, device, local_rank)
            with _coding(opened):
                yield opened
    else:
        device = choose_device(device, local_rank)
        opened = Opened(load_tokenizer(given, device, trust=trust), str(given), fingerprint(given), device)
        with _coding(opened):
            yield opened


@contextlib.contextmanager
def _coding(opened: Opened[Tokenizer]) -> Iterator[None]:
    """What lets a tokenizer code fast on the CPU."""
    memory = kept_memory() if opened.device == "cpu" else contextlib.nullcontext()
    with packed_convolutions(opened.model), memory:
        yield


@contextlib.contextmanager
def open_prior(
    given: Prior | str | os.PathLike, device: str | None, *, trust: bool = False, local_rank: int = 0
) -> Iterator[Opened[Prior]]:
    """The same for a prior.

    Raises:
        UserError: As `open_tokenizer`.
    """
    if isinstance(given, Prior):
        with evaluating(given):
            yield _taken(given, device, local_rank)
    else:
        device = choose_device(device, local_rank)
        prior = load_prior(given, device, trust=trust)
        yield Opened(prior, str(given), prior_fingerprint(given), device, class_names(given))


def tokenizer_of(
    prior: Prior | str | os.PathLike, given: Tokenizer | str | os.PathLike | None, trust: bool
) -> Tokenizer | str | os.PathLike:
    """The tokenizer of a prior's codes, or its bundle: what is given, or else what the prior's bundle says.

    Raises:
        UserError: Nothing is given, and the prior is no bundle; or as `find_tokenizer`.
    """
    if not isinstance(prior, Prior) and not isinstance(given, Tokenizer):
        return find_tokenizer(prior, given, trust=trust)
    if given is None:
        raise UserError("a prior that no bundle holds does not say which tokenizer decodes its codes: give --tokenizer")
    return given


def digest_of(parts: Iterable[str]) -> str:
    """A hash of several texts, such as the keys of pictures."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of the weights of a model that no bundle holds."""
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    return hashlib.sha256(save(weights)).hexdigest()


def _taken(model: Model, device: str | None, local_rank: int) -> Opened[Model]:
    """A model that no bundle holds, moved to a device where one is asked for."""
    if device is not None:
        model.to(choose_device(device, local_rank))
    here = next((str(value.device) for value in model.parameters()), "cpu")
    return Opened(model, type(model).__name__, weights_fingerprint(model), here)


def open_pictures(given: ImageData | str | Mapping[str, Any]) -> tuple[ImageData, dict[str, Any]]:
    """A source of pictures, and the options that say what it reads, as JSON has them; none for an object.

    Args:
        given: The source, the name of one, or its `class_path` and `init_args`.

    Raises:
        UserError: There is no such source, or an argument of it is wrong.
    """
    if isinstance(given, ImageData):
        return given, {}
    parser = recipe_parser("data")
    parser.add_subclass_arguments(ImageData, "data", required=True)
    config = parse_tree(parser, {"data": given})
    chosen = {name: value for name, value in config.data.init_args.items() if name not in _OF_SPEED}
    described = {"--data": config.data.class_path.rpartition(".")[2]}
    described |= {f"--data.{name}": value for name, value in chosen.items()}
    return instantiate(parser, config).data, json.loads(json.dumps(described, default=str))
