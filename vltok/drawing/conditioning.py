"""What a prior may condition the codes of an image on: its class, a text that describes it, or an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vltok.codes import Codes, Conditions
from vltok.errors import UserError, whole_number

#: What a user may ask for: the class of each image, its embedding, or its text, empty for none; or how many images.
Wanted = Int[Tensor, " b"] | Float[Tensor, "b e"] | Sequence[str] | int


@runtime_checkable
class ReadsConditions(Protocol):
    """What reads the texts or the embeddings of images for a prior."""

    @property
    def embedding_size(self) -> int | None:
        """How many numbers the embeddings have that it reads; None where it reads texts."""

    def to_draw(self, conditions: Any, labels: Tensor) -> Tensor:
        """What the prior reads of them while it draws, a row for each; `labels` are 1 where there is none, else 0."""


@dataclass(frozen=True)
class Conditioning:
    """Which classes a prior knows, or whether it reads texts or embeddings, and how often training hides them.

    A sequence starts with the token of its image's class. An image without one has the number `nothing`, whose token
    is ⟨sos⟩ itself. With texts or embeddings, the number tells alone whether there is one: 0 where there is, `nothing`
    elsewhere.

    Attributes:
        classes: The number of classes; None for an unconditional prior, and for one that reads texts or embeddings.
        label_dropout: Probability with which training hides an image's class, text or embedding.
        reader: Reads texts, or embeddings; None for a prior that reads neither.

    Raises:
        UserError: No class at all, classes and texts or embeddings, or label dropout without any.
    """

    classes: int | None = None
    label_dropout: float = 0.0
    reader: ReadsConditions | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.classes is not None and self.reader is not None:
            reads, remedy = "a text_encoder", "; their names may stand in the texts"
            if self.embedding_size is not None:
                reads, remedy = "an embedding_size", ""
            raise UserError(
                f"classes is {self.classes}, but a prior with {reads} knows none: leave classes out{remedy}"
            )
        if not 0 <= self.label_dropout <= 1 or (self.label_dropout and not self.nothing):
            raise UserError(
                f"label_dropout must lie in [0, 1] and needs classes, not {self.label_dropout} of {self.classes}"
            )
        if self.classes is not None and self.classes < 1:
            raise UserError(f"classes must be at least 1, not {self.classes}; leave it out for an unconditional prior")

    @property
    def embedding_size(self) -> int | None:
        """How many numbers embeddings have; None where none are read."""
        return None if self.reader is None else self.reader.embedding_size

    @property
    def reads(self) -> Literal["texts", "embeddings"] | None:
        """What the prior reads of images, as `Codes` calls it."""
        if self.reader is None:
            return None
        return "texts" if self.embedding_size is None else "embeddings"

    @property
    def described(self) -> bool:
        """Whether the prior reads texts."""
        return self.reads == "texts"

    @property
    def nothing(self) -> int:
        """The number of an image without a class, a text or an embedding."""
        return int(self.reader is not None) if self.classes is None else self.classes

    @property
    def starts(self) -> int:
        """How many start tokens there are: one for each class, or for what is read, and ⟨sos⟩ where there is none."""
        return self.nothing + int(self.classes is None or self.label_dropout > 0)

    def of_codes(self, codes: Codes, training: bool) -> Int[Tensor, " b"]:
        """The class of each image to learn from, some of them hidden in training.

        Raises:
            UserError: The prior knows classes, but the codes have no labels, or others; or it reads texts or
                embeddings, but they have none.
        """
        if self.reader is not None:
            labels = _missing(self.conditions(codes), codes.device)
        elif self.classes is None:
            return torch.zeros(len(codes), dtype=torch.long, device=codes.device)
        else:
            labels = codes.require_labels(self.classes)
        if training and self.label_dropout:
            hidden = torch.rand(len(codes), device=codes.device) < self.label_dropout
            labels = torch.where(hidden, self.nothing, labels)
        return labels

    def conditions(self, codes: Codes) -> Conditions:
        """What the reader reads of codes: their texts, or their embeddings.

        Raises:
            UserError: They have none.
        """
        return codes.require_conditions(self.embedding_size)

    def to_draw(self, wanted: Wanted, guidance: float, device: torch.device) -> Int[Tensor, " b"]:
        """The class of each image to draw, given what a user asks `Prior.sample` for, and the guidance, 1 for none.

        Raises:
            UserError: The prior cannot draw that.
        """
        if guidance != 1 and not self.label_dropout:
            raise UserError(
                "guidance needs a prior that has also learned images without their class, text or embedding: train it "
                "with classes, a text_encoder or an embedding_size, and a label_dropout above 0, or leave guidance at 1"
            )
        if _are_texts(wanted):
            if not self.described:
                raise UserError(f"this prior reads no texts: ask for {self._takes}")
            for text in wanted:
                _check_unicode(text)
            return _missing(wanted, device)
        if are_embeddings(wanted):
            self._check_embeddings(wanted)
            return _missing(wanted, device)
        if not isinstance(wanted, Tensor):
            count = whole_number("the number of images to draw", wanted, 1)
            if self.nothing and not self.label_dropout:
                raise UserError(f"this prior draws no images without a condition: ask for {self._takes}")
            return torch.full((count,), self.nothing, device=device)
        if self.classes is None:
            raise UserError(f"this prior knows no classes: ask for {self._takes}")
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

    def conditions_to_draw(self, wanted: Wanted, labels: Int[Tensor, " b"]) -> Tensor:
        """What the prior reads of the text or embedding of each image to draw, a row for each; `[b 0]` where it reads
        neither.

        Args:
            wanted: What `to_draw` was given.
            labels: What it gave.
        """
        if self.reader is None:
            return torch.zeros(len(labels), 0, device=labels.device)
        if self.embedding_size is not None:
            given = wanted if are_embeddings(wanted) else torch.zeros(len(labels), self.embedding_size)
            return self.reader.to_draw(given.float().to(labels.device), labels)
        return self.reader.to_draw(wanted if _are_texts(wanted) else [""] * len(labels), labels)

    @property
    def _takes(self) -> str:
        """What a user may ask for."""
        takes = [] if self.classes is None else [f"labels from 0 to {self.classes - 1}"]
        takes += ["texts"] if self.described else []
        takes += [] if self.embedding_size is None else [f"embeddings, float [n {self.embedding_size}]"]
        takes += ["a number of images"] if self.label_dropout or not takes else []
        return " or ".join(takes)

    def _check_embeddings(self, wanted: Float[Tensor, "b e"]) -> None:
        if self.embedding_size is None:
            raise UserError(f"this prior reads no embeddings: ask for {self._takes}")
        if not len(wanted) or wanted.shape[1] != self.embedding_size or not wanted.isfinite().all():
            found = f"of shape {list(wanted.shape)}"
            if wanted.numel() and not wanted.isfinite().all():
                found = "some that are no finite numbers"
            raise UserError(f"embeddings must be one or more rows of {self.embedding_size} numbers, not {found}")


def are_embeddings(wanted: object) -> TypeGuard[Float[Tensor, "b e"]]:
    """Whether images are asked for by embeddings."""
    return isinstance(wanted, Tensor) and wanted.dim() == 2 and wanted.is_floating_point()


def _are_texts(wanted: object) -> TypeGuard[Sequence[str]]:
    return isinstance(wanted, Sequence) and len(wanted) > 0 and all(isinstance(text, str) for text in wanted)


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"a text must be Unicode, but {text!r:.60} is none ({error.reason})") from error


def _missing(conditions: Conditions, device: torch.device) -> Int[Tensor, " b"]:
    """1 for images without a text, else 0; every image has an embedding."""
    if isinstance(conditions, Tensor):
        return torch.zeros(len(conditions), dtype=torch.long, device=device)
    return torch.tensor([int(not text) for text in conditions]).to(device, non_blocking=True)
