"""The options of drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vltok.codes import Ratios
from vltok.errors import UserError, unknown, whole_number


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn. At most one of `max_codes`, `codes` and `ratios` may be given.

    Attributes:
        temperature: Divides the logits of contents; positive. Near 0 the likeliest is drawn.
        top_k: Draw among the k most likely contents; None for all, 1 for the most likely.
        top_p: Draw among the most likely contents whose probabilities reach p, in (0, 1].
        position_temperature: The same for positions.
        position_top_k: The same for positions.
        position_top_p: The same for positions.
        positions: Whether the last granularity's positions are drawn (``sampled``), or filled in order, since they are
            what is left (``implied``).
        guidance: Classifier-free guidance scale; 1 is none.
        max_codes: The most codes that an image may have.
        codes: The number of codes that every image has.
        ratios: The shares of regions that every image has, keyed by factor: ``{8: 0.5, 16: 0.5}``; met to the nearest
            whole region.
        precision: What matrices are multiplied in: ``float32``, or ``bfloat16``, which halves the memory that is read.

    Raises:
        UserError: A value outside its range, or more than one control of the length.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    position_temperature: float = 1.0
    position_top_k: int | None = None
    position_top_p: float = 1.0
    positions: Literal["sampled", "implied"] = "sampled"
    guidance: float = 1.0
    max_codes: int | None = None
    codes: int | None = None
    ratios: dict[int, float] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("temperature", "position_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(
                    f"{name} must be a positive number, not {getattr(self, name)}; for the likeliest use top_k 1"
                )
        for name in ("top_p", "position_top_p"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"{name} must lie in (0, 1], not {getattr(self, name)}")
        if not math.isfinite(self.guidance):
            raise UserError(f"guidance must be a finite number, not {self.guidance}; 1 is none")
        for name, least in (("top_k", 1), ("position_top_k", 1), ("max_codes", None), ("codes", None)):
            if getattr(self, name) is not None:
                number = whole_number(name, getattr(self, name), least, "; leave it out to draw among all")
                object.__setattr__(self, name, number)
        if self.ratios is not None:
            Ratios.of(self.ratios)
        for name, choices in (("positions", ("sampled", "implied")), ("precision", ("float32", "bfloat16"))):
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)
        controls = [name for name in ("max_codes", "codes", "ratios") if getattr(self, name) is not None]
        if len(controls) > 1:
            raise UserError(f"{' and '.join(controls)} all set the length of an image: give one of them")
