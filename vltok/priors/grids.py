"""Priors of any grid: what they become for the images of one.

Such a prior has parts that make tables of places where another has the tables. For images of one grid it is a copy of
itself, with the very same parameters, in which tables have taken the place of what made them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import AnyGrid
from vltok.nn.places import place_features, step_features

Model = TypeVar("Model", bound=AnyGrid)
Module = TypeVar("Module", bound=nn.Module)
Ordering = TypeVar("Ordering", bound=nn.Module)
Given = ParamSpec("Given")
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Grid(Generic[Ordering]):
    """What follows from a grid of regions, nothing of which is learned.

    Attributes:
        spec: The codes on it.
        ordering: Turns them into sequences.
        maps: What tells the places of each granularity's position map; see `place_features`.
        steps: What tells each step of the longest sequence, special tokens included; see `step_features`.
        starts: The id of ⟨sos⟩ in the position track of each granularity, `[k]`.
    """

    spec: CodeSpec
    ordering: Ordering
    maps: tuple[Float[Tensor, "_ f"], ...]
    steps: Float[Tensor, "s _"]
    starts: Int[Tensor, " k"]


class Grids(Generic[Ordering]):
    """What follows from each grid, made once for each device.

    Args:
        spec: The codes, on any grid.
        order: Makes an ordering of the codes of one.
    """

    def __init__(self, spec: CodeSpec, order: Callable[[CodeSpec], Ordering]) -> None:
        self._spec = spec
        self._order = order
        self._made: dict[tuple[tuple[int, int], torch.device], Grid[Ordering]] = {}

    def __call__(self, regions: tuple[int, int], device: torch.device) -> Grid[Ordering]:
        """What follows from a grid of so many rows and columns of regions."""
        if (regions, device) not in self._made:
            with torch.inference_mode(False):  # training may need them, too
                spec = replace(self._spec, regions=regions)
                granularities = range(spec.granularities)
                self._made[regions, device] = Grid(
                    spec,
                    self._order(spec).to(device),
                    tuple(place_features(spec, granularity).to(device) for granularity in granularities),
                    step_features(spec.longest_length + 2 * spec.granularities).to(device),
                    torch.tensor([spec.position_start(granularity) for granularity in granularities]).to(device),
                )
        return self._made[regions, device]


def placed(prior: Module, spec: CodeSpec, **tables: nn.Module) -> Module:
    """A prior with the same parameters, for the codes of one grid.

    Args:
        prior: One of any grid, or a part of it that has a `spec`.
        spec: Those codes.
        tables: What takes the place of its parts, by their names.
    """
    other: Any = copy.copy(prior)
    other._modules = {**other._modules, **tables}
    other._buffers = dict(other._buffers)
    other.spec = spec
    return other


def only_grid(prior: Model, grid: tuple[int, int]) -> Model:
    """A prior of one grid, where that is the one asked for.

    Raises:
        UserError: It is another one.
    """
    if grid != prior.spec.regions:
        raise UserError(f"the prior models images of {prior.spec.regions} regions alone, not of {grid}")
    return prior


def on_their_grid(
    method: Callable[Concatenate[Model, Codes, Given], Found],
) -> Callable[Concatenate[Model, Codes, Given], Found]:
    """A method that is given codes first, so that a prior of any grid is the one of theirs."""

    @functools.wraps(method)
    def found(self: Model, codes: Codes, /, *args: Given.args, **kwargs: Given.kwargs) -> Found:
        if self.spec.any_grid:
            rows, columns = codes.require_grains().shape[1:]
            self = cast(Model, self.on_grid((rows, columns)))
        return method(self, codes, *args, **kwargs)

    return found
