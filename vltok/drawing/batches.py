"""What a prior implements to draw images; `Prior.sample` is around it.

Axis letters: b image, u random number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from vltok.codes import Codes
from vltok.drawing.sampling import uniforms


@dataclass(frozen=True, eq=False)
class WantedImages:
    """Images to draw.

    Attributes:
        numbers: The number of each image, `[b]`.
        streams: Its random stream, `[b]`.
        labels: Its class, `[b]`; `Conditioning.nothing` where it has none, or no text and no embedding.
        conditions: What the prior reads of its text or embedding: a row for each image, `[b 0]` where it reads none.
    """

    numbers: Int[Tensor, " b"]
    streams: Int[Tensor, " b"]
    labels: Int[Tensor, " b"]
    conditions: Shaped[Tensor, "b ..."]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, chosen: slice) -> WantedImages:
        return WantedImages(self.numbers[chosen], self.streams[chosen], self.labels[chosen], self.conditions[chosen])

    def uniforms(self, count: int) -> Float[Tensor, "b u"]:
        """The first numbers of each image's stream, uniform in [0, 1)."""
        counts = torch.arange(count, device=self.streams.device).expand(len(self), -1)
        return uniforms(self.streams[:, None].expand_as(counts), counts)


class Drawing(ABC):
    """How a prior draws images with the options that a user asks for."""

    @abstractmethod
    def finished(self, images: WantedImages, batch_size: int) -> Iterator[tuple[Sequence[int], Codes]]:
        """Draw all images, no more than `batch_size` at a time.

        Yields:
            The places in `images` of some that are finished, and their codes, without labels, texts and embeddings.
        """


class BatchDrawing(Drawing):
    """Draws batch after batch, each as a whole.

    Args:
        draw: Gives the codes of a batch. An image may depend on its own stream, label, text and embedding alone.
    """

    def __init__(self, draw: Callable[[WantedImages], Codes]) -> None:
        self.draw = draw

    def finished(self, images: WantedImages, batch_size: int) -> Iterator[tuple[Sequence[int], Codes]]:
        """One batch after the other."""
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            yield range(start, start + len(batch)), self.draw(batch)
