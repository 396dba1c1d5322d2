"""The options of drawing. Each prior has a dataclass of those that it has: one of these, or its own."""

from __future__ import annotations

import dataclasses
import math
import types
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from vltok.code_spec import Ratios
from vltok.errors import UserError, unknown, whole_number
from vltok.rates import Rate

Options = TypeVar("Options", bound="SamplingOptions")


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn: what every prior has.

    Attributes:
        temperature: Divides the logits of contents; positive. Near 0 the likeliest is drawn.
        top_k: Draw among the k most likely contents; None for all, 1 for the most likely.
        top_p: Draw among the most likely contents whose probabilities reach p, in (0, 1].
        guidance: Classifier-free guidance scale; 1 is none.
        precision: What matrices are multiplied in: ``float32``, or ``bfloat16``, which halves the memory that is read.
        regions: The rows and columns of regions that every image has, for a prior of any grid.

    Raises:
        UserError: A value outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    guidance: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    # records of before it say nothing of it
    regions: tuple[int, int] | None = dataclasses.field(default=None, metadata={"unwritten": None})

    def __post_init__(self) -> None:
        check_filter(self)
        if not math.isfinite(self.guidance):
            raise UserError(f"guidance must be a finite number, not {self.guidance}; 1 is none")
        if self.precision not in (choices := ("float32", "bfloat16")):
            raise unknown("precision", self.precision, choices)
        if self.regions is not None:
            sides = tuple(whole_number("regions", side, 1) for side in self.regions)
            if len(sides) != 2:
                raise UserError(f"regions must be two numbers, of rows and of columns, not {list(sides)}")
            object.__setattr__(self, "regions", sides)


@dataclass(frozen=True)
class VariableLengthSampling(SamplingOptions):
    """How tokens are drawn where images have granularities, positions or lengths of their own. At most one of
    `max_codes`, `codes` and `ratios` may be given.

    Attributes:
        position_temperature: The temperature of positions, or of what a prior has in their place, such as
            granularities; positive.
        position_top_k: The same for positions.
        position_top_p: The same for positions.
        max_codes: The most codes that an image may have.
        codes: The number of codes that every image has.
        ratios: The shares of regions that every image has, keyed by factor: ``{8: 0.5, 16: 0.5}``; met to the nearest
            whole region.

    Raises:
        UserError: A value outside its range, or more than one control of the length.
    """

    position_temperature: float = 1.0
    position_top_k: int | None = None
    position_top_p: float = 1.0
    max_codes: int | None = None
    codes: int | None = None
    ratios: dict[int, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_filter(self, "position_")
        for name in ("max_codes", "codes"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), None, "; leave it out for any"))
        if self.ratios is not None:
            Ratios.of(self.ratios)
        controls = [name for name in ("max_codes", "codes", "ratios") if getattr(self, name) is not None]
        if len(controls) > 1:
            raise UserError(f"{' and '.join(controls)} all set the length of an image: give one of them")


@dataclass(frozen=True)
class SamplingConfig(VariableLengthSampling):
    """How tokens are drawn where positions are: every option that a prior of vltok has.

    Any prior takes it, and refuses those that are set and that it does not have.

    Attributes:
        positions: Whether the last granularity's positions are drawn (``sampled``), or filled in order, since they are
            what is left (``implied``).

    Raises:
        UserError: A value outside its range, or more than one control of the length.
    """

    positions: Literal["sampled", "implied"] = "sampled"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions not in (choices := ("sampled", "implied")):
            raise unknown("positions", self.positions, choices)


def at_rate(options: Options, rate: Rate) -> Options:
    """Options with which a prior draws images at a rate.

    Raises:
        UserError: It is none that a prior can draw at, this one cannot, or the options control the length already.
    """
    name = {"codes": "codes", "max-codes": "max_codes", "ratios": "ratios"}.get(rate.kind)
    if name is None:
        raise UserError(f"rate {rate}: there is no picture to compare with; give codes, max-codes or ratios to a prior")
    if not isinstance(options, VariableLengthSampling):
        raise UserError(f"rate {rate}: this prior has no control of the code length")
    if isinstance(rate.value, Ratios):
        return replace(options, ratios=dict(zip(rate.value.factors, rate.value.shares, strict=True)))
    controls: dict[str, Any] = {name: rate.value}
    return replace(options, **controls)


def every_option(kind: type[SamplingOptions]) -> type[SamplingOptions]:
    """A prior's options and all of vltok's own, so that those that it does not have are refused by their names."""
    if issubclass(SamplingConfig, kind):
        return SamplingConfig
    if issubclass(kind, SamplingConfig):
        return kind
    return dataclass(frozen=True)(types.new_class(kind.__name__, (kind, SamplingConfig)))


def options_for(kind: type[Options], prior: str, given: SamplingOptions) -> Options:
    """A prior's own options, of a class, from those of any other.

    Raises:
        UserError: An option is set that the prior does not have.
    """
    if type(given) is kind:
        return given
    own = {field.name for field in fields(kind)}
    values: dict[str, Any] = {field.name: getattr(given, field.name) for field in fields(given)}
    for field in fields(given):
        if field.name not in own and values[field.name] != field.default:
            raise UserError(
                f"{field.name} is {values[field.name]}, but {prior} has no such option: leave it out; those that it "
                f"has are {', '.join(field.name for field in fields(kind))}"
            )
    return kind(**{name: value for name, value in values.items() if name in own})


def check_filter(options: SamplingOptions, prefix: str = "") -> None:
    """See that a temperature, a top-k and a top-p, named with a prefix, are such; make the top-k a plain number.

    Raises:
        UserError: A value is outside its range.
    """
    temperature, top_k, top_p = (f"{prefix}{name}" for name in ("temperature", "top_k", "top_p"))
    if not 0 < (value := getattr(options, temperature)) < math.inf:
        raise UserError(f"{temperature} must be a positive number, not {value}; for the likeliest use top_k 1")
    if not 0 < (value := getattr(options, top_p)) <= 1:
        raise UserError(f"{top_p} must lie in (0, 1], not {value}")
    if (value := getattr(options, top_k)) is not None:
        object.__setattr__(options, top_k, whole_number(top_k, value, 1, "; leave it out to draw among all"))
