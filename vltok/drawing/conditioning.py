"""The class of an image, on which a prior may condition its codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from vltok.codes import Codes
from vltok.errors import UserError, whole_number


@dataclass(frozen=True)
class Conditioning:
    """Which classes a prior knows, and how often training hides them.

    A sequence starts with the token of its image's class. An image without one has the number `classes` (0 where there
    are none), whose token is ⟨sos⟩ itself.

    Attributes:
        classes: The number of classes; None for an unconditional prior.
        label_dropout: Probability with which training hides an image's class.

    Raises:
        UserError: No class at all, or label dropout without classes.
    """

    classes: int | None = None
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_dropout <= 1 or (self.label_dropout and self.classes is None):
            raise UserError(
                f"label_dropout must lie in [0, 1] and needs classes, not {self.label_dropout} of {self.classes}"
            )
        if self.classes is not None and self.classes < 1:
            raise UserError(f"classes must be at least 1, not {self.classes}; leave it out for an unconditional prior")

    @property
    def starts(self) -> int:
        """How many start tokens there are: one for each class, and ⟨sos⟩ where images without a class occur."""
        return (self.classes or 0) + int(self.classes is None or self.label_dropout > 0)

    def of_codes(self, codes: Codes, training: bool) -> Int[Tensor, " b"]:
        """The class of each image to learn from, some of them hidden in training.

        Raises:
            UserError: The prior knows classes, but the codes have no labels, or others.
        """
        if self.classes is None:
            return torch.zeros(len(codes), dtype=torch.long, device=codes.device)
        labels = codes.require_labels(self.classes)
        if training and self.label_dropout:
            hidden = torch.rand(len(codes), device=codes.device) < self.label_dropout
            labels = torch.where(hidden, self.classes, labels)
        return labels

    def to_draw(
        self, labels_or_count: Int[Tensor, " b"] | int, guidance: float, device: torch.device
    ) -> Int[Tensor, " b"]:
        """The class of each image to draw, given what a user asks `Prior.sample` for, and the guidance, 1 for none.

        Raises:
            UserError: The prior cannot draw that.
        """
        if guidance != 1 and not self.label_dropout:
            raise UserError(
                "guidance needs a prior that has also learned images without their class: train it with classes and a "
                "label_dropout above 0, or leave guidance at 1"
            )
        if not isinstance(labels_or_count, Tensor):
            count = whole_number("the number of images to draw", labels_or_count, 1)
            if self.classes is not None and not self.label_dropout:
                raise UserError(f"this prior draws images of a class: give labels from 0 to {self.classes - 1}")
            return torch.full((count,), self.classes or 0, device=device)
        if self.classes is None:
            raise UserError("this prior knows no classes: ask for a number of images instead of labels")
        labels = labels_or_count
        allowed = f"labels must be one or more whole numbers from 0 to {self.classes - 1}"
        if labels.dim() != 1 or not len(labels):
            raise UserError(f"{allowed}, in a row, not of shape {tuple(labels.shape)}")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise UserError(f"{allowed}, not {labels.dtype}")
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if len(wrong):
            raise UserError(f"{allowed}, not {wrong[0]}")
        return labels.long().to(device)
