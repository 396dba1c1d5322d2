"""Drawing images again and again with the same options.

Axis letters: b image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import SupportsIndex

import torch
from torch import Tensor

from vltok.codes import Codes
from vltok.drawing.batches import Drawing, WantedImages
from vltok.drawing.conditioning import Conditioning, Wanted, are_embeddings
from vltok.drawing.sampling import seed_of, streams
from vltok.errors import whole_number


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws images from a prior with options that stay the same.

    What they need besides the prior, such as its matrices in another precision, is made once.

    Attributes:
        drawing: How images are drawn.
        conditioning: The classes whose images can be drawn, or whether texts or embeddings say what is.
        guidance: The scale of classifier-free guidance; 1 is none.
        device: Where the prior is.
    """

    drawing: Drawing
    conditioning: Conditioning
    guidance: float
    device: torch.device

    @torch.no_grad()
    def __call__(
        self,
        wanted: Wanted,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        first_image: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> Codes:
        """Draw the codes of images, in the order asked for: see `Prior.sample`.

        Raises:
            UserError: Labels, texts or embeddings where the prior knows none, or labels that it does not know.
        """
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size, 1)
        first_image = whole_number("first_image", first_image)
        labels = self.conditioning.to_draw(wanted, self.guidance, self.device)
        count = len(labels)
        numbers = torch.arange(count, device=self.device) + first_image
        conditions = self.conditioning.conditions_to_draw(wanted, labels)
        images = WantedImages(numbers, streams(seed_of(generator), numbers), labels, conditions)
        order: list[int] = []
        parts: list[Codes] = []
        for places, codes in self.drawing.finished(images, min(batch_size or count, count)):
            order += places
            parts.append(codes)
            if progress is not None:
                progress(len(places))
        codes = Codes.concatenate(parts)[torch.tensor(order).argsort()]
        if are_embeddings(wanted):
            return replace(codes, embeddings=wanted.float().to(self.device))
        if isinstance(wanted, Tensor):
            return replace(codes, labels=labels)
        return codes if isinstance(wanted, SupportsIndex) else replace(codes, texts=tuple(wanted))
