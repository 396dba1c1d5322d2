"""Vectors without what those of all images share.

Axis letters: b image, n code, c channel.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vltok.processes import batch_mean

#: How much of the averages a training step replaces, at least: the first steps are averaged evenly.
_RATE = 0.05


@dataclass(frozen=True)
class Scale:
    """How vectors lie at each place of a sequence.

    Attributes:
        mean: Their mean over images.
        spread: Their standard deviation over images.
    """

    mean: Float[Tensor, "n c"]
    spread: Float[Tensor, "n c"]

    def of(self, vectors: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Vectors on this scale: what differs from the mean, in units of the spread."""
        return (vectors - self.mean) / self.spread

    def undo(self, vectors: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """The vectors that `of` put on the scale; 0 gives the mean."""
        return vectors * self.spread + self.mean


class Standard(nn.Module):
    """The scale on which vectors are quantized.

    One codebook serves all places of a sequence. Quantized as they are, vectors would spend its codes on telling the
    places apart, which every decoder knows, and the few differences between images would get none.

    In training the scale is the batch's; afterwards, an average over the last steps.

    Args:
        places: Places of a sequence.
        dimension: Width of a vector.
    """

    mean: Tensor
    variance: Tensor
    steps: Tensor

    def __init__(self, places: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(places, dimension))
        self.register_buffer("variance", torch.ones(places, dimension))
        self.register_buffer("steps", torch.zeros(()))

    @property
    def average(self) -> Scale:
        """That of the last training steps."""
        return _scale(self.mean, self.variance)

    def forward(self, vectors: Float[Tensor, "b n c"]) -> Scale:
        """The scale of vectors: in training their own, over all processes; else the average."""
        if not self.training:
            return self.average
        mean = batch_mean(vectors, together=True)
        variance = batch_mean((vectors - mean).square(), together=True)
        with torch.no_grad():
            self.steps += 1
            rate = self.steps.reciprocal().clamp_min(_RATE)
            self.mean.lerp_(mean, rate)
            self.variance.lerp_(variance, rate)
        return _scale(mean, variance)


def _scale(mean: Float[Tensor, "n c"], variance: Float[Tensor, "n c"]) -> Scale:
    return Scale(mean, (variance + 1e-6).sqrt())
