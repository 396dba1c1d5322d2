"""What a prior may condition the codes of an image on: its class, or a text that describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from vltok.codes import Codes
from vltok.errors import UserError, whole_number


@runtime_checkable
class ReadsTexts(Protocol):
    """What reads the texts of images for a prior."""

    def to_draw(self, texts: Sequence[str], labels: Tensor) -> Tensor:
        """What the prior reads of texts while it draws, a row for each; `labels` are 1 where there is none, else 0."""


@dataclass(frozen=True)
class Conditioning:
    """Which classes a prior knows, or whether it reads texts, and how often training hides them.

    A sequence starts with the token of its image's class. An image without one has the number `nothing`, whose token
    is ⟨sos⟩ itself. With texts, the number tells alone whether there is one: 0 where there is, `nothing` elsewhere.

    Attributes:
        classes: The number of classes; None for an unconditional prior, and for one that reads texts.
        label_dropout: Probability with which training hides an image's class or text.
        text_reader: Reads texts; None for a prior that reads none.

    Raises:
        UserError: No class at all, classes and texts, or label dropout without either.
    """

    classes: int | None = None
    label_dropout: float = 0.0
    text_reader: ReadsTexts | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.classes is not None and self.text_reader is not None:
            raise UserError(
                f"classes is {self.classes}, but a prior with a text_encoder knows none: leave classes out; their "
                "names may stand in the texts"
            )
        if not 0 <= self.label_dropout <= 1 or (self.label_dropout and not self.nothing):
            raise UserError(
                f"label_dropout must lie in [0, 1] and needs classes, not {self.label_dropout} of {self.classes}"
            )
        if self.classes is not None and self.classes < 1:
            raise UserError(f"classes must be at least 1, not {self.classes}; leave it out for an unconditional prior")

    @property
    def described(self) -> bool:
        """Whether the prior reads texts."""
        return self.text_reader is not None

    @property
    def nothing(self) -> int:
        """The number of an image without a class or a text."""
        return int(self.described) if self.classes is None else self.classes

    @property
    def starts(self) -> int:
        """How many start tokens there are: one for each class, or for texts, and ⟨sos⟩ where images have neither."""
        return self.nothing + int(self.classes is None or self.label_dropout > 0)

    def of_codes(self, codes: Codes, training: bool) -> Int[Tensor, " b"]:
        """The class of each image to learn from, some of them hidden in training.

        Raises:
            UserError: The prior knows classes, but the codes have no labels, or others; or it reads texts, but they
                have none.
        """
        if self.described:
            labels = _undescribed(codes.require_texts(), codes.device)
        elif self.classes is None:
            return torch.zeros(len(codes), dtype=torch.long, device=codes.device)
        else:
            labels = codes.require_labels(self.classes)
        if training and self.label_dropout:
            hidden = torch.rand(len(codes), device=codes.device) < self.label_dropout
            labels = torch.where(hidden, self.nothing, labels)
        return labels

    def to_draw(
        self, wanted: Int[Tensor, " b"] | Sequence[str] | int, guidance: float, device: torch.device
    ) -> Int[Tensor, " b"]:
        """The class of each image to draw, given what a user asks `Prior.sample` for, and the guidance, 1 for none.

        Raises:
            UserError: The prior cannot draw that.
        """
        if guidance != 1 and not self.label_dropout:
            raise UserError(
                "guidance needs a prior that has also learned images without their class or text: train it with "
                "classes or a text_encoder, and a label_dropout above 0, or leave guidance at 1"
            )
        if _are_texts(wanted):
            if not self.described:
                raise UserError("this prior reads no texts: ask for labels or a number of images")
            for text in wanted:
                _check_unicode(text)
            return _undescribed(wanted, device)
        if not isinstance(wanted, Tensor):
            count = whole_number("the number of images to draw", wanted, 1)
            if self.nothing and not self.label_dropout:
                what = "that a text describes: give texts"
                if not self.described:
                    what = f"of a class: give labels from 0 to {self.nothing - 1}"
                raise UserError(f"this prior draws images {what}")
            return torch.full((count,), self.nothing, device=device)
        if self.classes is None:
            raise UserError("this prior knows no classes: ask for a number of images instead of labels")
        labels = wanted
        allowed = f"labels must be one or more whole numbers from 0 to {self.classes - 1}"
        if labels.dim() != 1 or not len(labels):
            raise UserError(f"{allowed}, in a row, not of shape {tuple(labels.shape)}")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise UserError(f"{allowed}, not {labels.dtype}")
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if len(wrong):
            raise UserError(f"{allowed}, not {wrong[0]}")
        return labels.long().to(device)

    def texts_to_draw(self, wanted: Int[Tensor, " b"] | Sequence[str] | int, labels: Int[Tensor, " b"]) -> Tensor:
        """What the prior reads of the text of each image to draw, a row for each; `[b 0]` where it reads none.

        Args:
            wanted: What `to_draw` was given.
            labels: What it gave.
        """
        if self.text_reader is None:
            return torch.zeros(len(labels), 0, device=labels.device)
        return self.text_reader.to_draw(wanted if _are_texts(wanted) else [""] * len(labels), labels)


def _are_texts(wanted: object) -> TypeGuard[Sequence[str]]:
    return isinstance(wanted, Sequence) and len(wanted) > 0 and all(isinstance(text, str) for text in wanted)


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"a text must be Unicode, but {text!r:.60} is none ({error.reason})") from error


def _undescribed(texts: Sequence[str], device: torch.device) -> Int[Tensor, " b"]:
    """1 for images without a text, else 0."""
    return torch.tensor([int(not text) for text in texts]).to(device, non_blocking=True)
