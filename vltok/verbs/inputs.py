"""What verbs are given: a tokenizer, a prior or pictures, as objects or as what names them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import save
from torch import nn

from vltok.interfaces import Prior, Tokenizer
from vltok.io.bundles import class_names, fingerprint, load_prior, load_tokenizer, prior_fingerprint
from vltok.io.recipes import instantiate, parse_tree, recipe_parser
from vltok.nn.modes import evaluating
from vltok.pictures.images import ImageData
from vltok.verbs.devices import choose_device

#: Arguments of data on which no picture depends.
_OF_SPEED = ("workers", "batch_size")


@dataclass(frozen=True, eq=False)
class OpenTokenizer:
    """A tokenizer in evaluation mode.

    Attributes:
        tokenizer: On `device`.
        fingerprint: By which codes name it: its bundle's, or for an object that of its weights.
        device: Where it computes.
    """

    tokenizer: Tokenizer
    fingerprint: str
    device: str


@contextlib.contextmanager
def open_tokenizer(
    given: Tokenizer | str | os.PathLike, device: str | None, *, trust: bool = False, local_rank: int = 0
) -> Iterator[OpenTokenizer]:
    """Load a bundle, or take a tokenizer as it is, which is in the mode in which it was again afterwards.

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
            yield OpenTokenizer(given, weights_fingerprint(given), _moved(given, device, local_rank))
    else:
        device = choose_device(device, local_rank)
        yield OpenTokenizer(load_tokenizer(given, device, trust=trust), fingerprint(given), device)


@dataclass(frozen=True, eq=False)
class OpenPrior:
    """A prior in evaluation mode.

    Attributes:
        prior: On `device`.
        fingerprint: Its bundle's, or for an object that of its weights.
        device: Where it computes.
        class_names: The names of its classes, where its bundle tells them.
    """

    prior: Prior
    fingerprint: str
    device: str
    class_names: tuple[str, ...] | None = None


@contextlib.contextmanager
def open_prior(
    given: Prior | str | os.PathLike, device: str | None, *, trust: bool = False, local_rank: int = 0
) -> Iterator[OpenPrior]:
    """The same for a prior.

    Raises:
        UserError: As `open_tokenizer`.
    """
    if isinstance(given, Prior):
        with evaluating(given):
            yield OpenPrior(given, weights_fingerprint(given), _moved(given, device, local_rank))
    else:
        device = choose_device(device, local_rank)
        prior = load_prior(given, device, trust=trust)
        yield OpenPrior(prior, prior_fingerprint(given), device, class_names(given))


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of the weights of a model that no bundle holds."""
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    return hashlib.sha256(save(weights)).hexdigest()


def _moved(model: nn.Module, device: str | None, local_rank: int) -> str:
    """The device of a model, which is moved where another one is asked for."""
    if device is not None:
        model.to(choose_device(device, local_rank))
    return next((str(value.device) for value in model.parameters()), "cpu")


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
