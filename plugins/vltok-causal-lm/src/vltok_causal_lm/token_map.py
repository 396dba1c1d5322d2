"""What the tokens of an exported language model mean, and which of them may follow.

`tokens.json` stands beside the model's own files, for programs that know nothing of vltok:

```
{
  "codes": {"first": 0, "count": 512},                   tokens that are codes: the token less `first`
  "structure": [                                         tokens that say how codes go on
    {"token": 512, "factor": 8, "codes": 1},             a region of this granularity begins: so many codes follow
    {"token": 513, "factor": 4, "codes": 4}],            on no grid, the one token is {"token": 512, "end": true}
  "starts": {"first": 514, "classes": 10, "without_class": 524},
  "factors": [8, 4], "regions": [8, 8], "max_length": null,
  "tokenizer": "6844f3…"                                 the fingerprint of the tokenizer that decodes the codes
}
```
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from vltok.codes import Codes, CodeSpec
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import VariableLengthSampling
from vltok.errors import UserError
from vltok_causal_lm.drawing import legal_choices
from vltok_causal_lm.serialization import GriddedSerialization, serialization_of

FILE = "tokens.json"


@dataclass(frozen=True)
class TokenMap:
    """The tokens of an exported model.

    Attributes:
        spec: What its codes may be.
        conditioning: Which classes it knows.
        tokenizer: The fingerprint of the tokenizer that decodes its codes.

    Raises:
        UserError: The spec leaves open how long sequences can be.
    """

    spec: CodeSpec
    conditioning: Conditioning
    tokenizer: str

    def __post_init__(self) -> None:
        serialization = serialization_of(self.spec)
        # derived, and kept: a processor asks for them at every token
        object.__setattr__(self, "serialization", serialization)
        object.__setattr__(self, "grammar", serialization.grammar(VariableLengthSampling()))

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> TokenMap:
        """Read that of an exported model.

        Raises:
            UserError: The folder has none, or it is damaged.
        """
        path = Path(folder) / FILE
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            spec = CodeSpec(told["codes"]["count"], tuple(told["factors"]), _pair(told["regions"]), told["max_length"])
            classes, without = told["starts"]["classes"], told["starts"]["without_class"]
            dropout = 1.0 if classes is not None and without is not None else 0.0
            return cls(spec, Conditioning(classes, dropout), told["tokenizer"])
        except OSError as error:
            raise UserError(f"'{folder}' is no model that 'vltok export' wrote: it has no {FILE}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"'{path}' is damaged: it does not tell codes, starts and the grid") from error

    def save(self, folder: Path) -> None:
        """Write it beside a model."""
        content = {
            "codes": {"first": 0, "count": self.spec.codebook_size},
            "structure": self._structure(),
            "starts": {
                "first": self.first_start,
                "classes": self.conditioning.classes,
                "without_class": self.first_start + self.conditioning.starts - 1 if self._draws_without_class else None,
            },
            "factors": list(self.spec.factors),
            "regions": None if self.spec.regions is None else list(self.spec.regions),
            "max_length": self.spec.max_length,
            "tokenizer": self.tokenizer,
        }
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @property
    def first_start(self) -> int:
        """The start of images of class 0, or of all images where there are no classes."""
        return self.spec.codebook_size + self.serialization.structures

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return self.first_start + self.conditioning.starts

    @property
    def last(self) -> int:
        """The token that stands after an image which is complete."""
        return self.first_start if self.spec.gridded else self.spec.codebook_size

    @property
    def most(self) -> int:
        """The most tokens that follow a start, the one after the image among them."""
        return self.serialization.longest + int(self.spec.gridded)

    def start(self, label: int | None = None) -> int:
        """The token that a prompt is: that of a class, or of images without one.

        Raises:
            UserError: The model knows no such class, or draws none without.
        """
        classes = self.conditioning.classes
        if label is None and self._draws_without_class:
            return self.first_start + (classes or 0)
        if classes is None or label is None or not 0 <= label < classes:
            known = "no classes" if classes is None else f"the classes 0 to {classes - 1}"
            raise UserError(f"label is {label}, but the model knows {known}")
        return self.first_start + label

    def legal(self, tokens: Int[Tensor, "n t"]) -> Bool[Tensor, "n v"]:
        """Which tokens may follow each sequence, with its start or without; `last` alone where it is complete."""
        choices = legal_choices(tokens.cpu(), self.serialization, self.grammar)
        going_on = choices[:, :1].expand(-1, self.spec.codebook_size)
        starts = torch.zeros(len(tokens), self.conditioning.starts, dtype=torch.bool)
        legal = torch.cat([going_on, choices[:, 1:], starts], dim=1)
        legal[:, self.last] |= ~choices.any(1)
        return legal.to(tokens.device)

    def codes(self, tokens: Int[Tensor, "n t"]) -> Codes:
        """The codes of sequences, with their starts or without, on the CPU.

        Raises:
            UserError: A sequence is not complete, or no legal one.
        """
        tokens = tokens.cpu()
        if len(unfinished := legal_choices(tokens, self.serialization, self.grammar).any(1).nonzero()):
            raise UserError(f"sequence {int(unfinished[0])} is not complete: draw up to {self.most} tokens")
        return self.serialization.codes(tokens).validate(self.spec)

    def _structure(self) -> list[dict[str, Any]]:
        first = self.spec.codebook_size
        if not isinstance(self.serialization, GriddedSerialization):
            return [{"token": first, "end": True}]
        granularities = zip(self.spec.factors, self.spec.codes_per_region, strict=True)
        return [{"token": first + k, "factor": f, "codes": codes} for k, (f, codes) in enumerate(granularities)]

    @property
    def _draws_without_class(self) -> bool:
        return self.conditioning.classes is None or self.conditioning.label_dropout > 0


class LegalTokens(LogitsProcessor):
    """Takes from `generate` every token that no image has there, so that what it draws can be decoded.

    Args:
        tokens: The model's.
    """

    def __init__(self, tokens: TokenMap) -> None:
        self.tokens = tokens

    def __call__(self, input_ids: Int[Tensor, "n t"], scores: Float[Tensor, "n v"]) -> Float[Tensor, "n v"]:
        """The logits, with -inf for what is not legal."""
        return scores.masked_fill(~self.tokens.legal(input_ids), -torch.inf)


def _pair(regions: list[int] | None) -> tuple[int, int] | None:
    if regions is None:
        return None
    height, width = regions
    return height, width
