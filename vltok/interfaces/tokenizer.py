"""What a tokenizer is, and what only some tokenizers can do."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vltok.codes import Codes, CodeSpec, Ratios
from vltok.images import image_batch
from vltok.interfaces.bundled import Bundled, package
from vltok.interfaces.gate import GateDecision
from vltok.rates import Rate, RateCalibration


@dataclass(frozen=True, eq=False)
class TokenizerOutput:
    """What a tokenizer's forward pass gives.

    Attributes:
        reconstruction: The decoded images, `[b 3 H W]`, about in [-1, 1].
        codes: The codes that they were decoded from.
        losses: The tokenizer's own training losses by name, already weighted, each a scalar; they are added to the
            reconstruction losses. In training on several processes each is a share, whose mean over the processes is
            the loss of the whole batch (`vltok.processes`).
    """

    reconstruction: Float[Tensor, "b 3 H W"]
    codes: Codes
    losses: Mapping[str, Tensor]


class Tokenizer(Bundled):
    """Turns images into codes, and codes back into images."""

    _load = "load_tokenizer"
    #: Which thresholds give which mean code lengths, where `vltok rate` has measured it; its bundle keeps it.
    calibration: RateCalibration | None = None

    @property
    @abstractmethod
    def spec(self) -> CodeSpec:
        """What the codes may be."""

    @property
    @abstractmethod
    def divisor(self) -> int:
        """The number of pixels that the sides of an image must be multiples of."""

    @final
    def save_pretrained(self, folder: str | os.PathLike, **options: Any) -> None:
        """Write a bundle; the options are `vltok.save_tokenizer`'s.

        Raises:
            UserError: As `vltok.save_tokenizer`.
        """
        package().save_tokenizer(self, folder, **options)

    @final
    def encode(self, images: Tensor | np.ndarray | Image.Image, rate: Rate | str | None = None) -> Codes:
        """The codes of one image or a batch, on the tokenizer's device.

        Args:
            images: Floats in [-1, 1] or uint8, `[b 3 H W]` or `[3 H W]`, or a Pillow image: see
                `vltok.images.image_batch`.
            rate: How many codes they get, such as ``codes=400`` or ``psnr=30`` (`vltok.rates.Rate`); by default what
                the tokenizer itself chooses.

        Raises:
            UserError: They are no images, or of a size that the tokenizer does not take; or there is no such rate.
        """
        mine = next(itertools.chain(self.parameters(), self.buffers()), None)
        batch = image_batch(images, None if mine is None else mine.device)
        return self.encode_batch(batch) if rate is None else package().RateEncoder(self, Rate.of(rate))(batch)

    @abstractmethod
    def encode_batch(self, images: Float[Tensor, "b 3 H W"]) -> Codes:
        """The codes of images in [-1, 1]. Decisions are taken as in evaluation, whatever the module's mode.

        Raises:
            UserError: The images are of a size that the tokenizer does not take.
        """

    @final
    def decode(self, codes: Codes) -> Float[Tensor, "b 3 H W"]:
        """The images of codes, of any mix of lengths, which lie on the tokenizer's device.

        Raises:
            UserError: They are no codes of this tokenizer: see `Codes.validate`.
        """
        return self.decode_batch(codes.validate(self.spec))

    @abstractmethod
    def decode_batch(self, codes: Codes) -> Float[Tensor, "b 3 H W"]:
        """The images of codes that fit the `spec`. Decoded as in evaluation, whatever the module's mode."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 H W"]) -> TokenizerOutput:
        """Encode and decode in one pass through which gradients flow; in training mode decisions may be drawn."""


class FixedSize(ABC):
    """A tokenizer that takes images of one size alone, such as one whose codes do not say how large an image was."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Their height and width in pixels, multiples of the tokenizer's `divisor`."""


class Adversarial(ABC):
    """A tokenizer that can be trained against a discriminator."""

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """The weight of the layer that gives the pixels: the adversarial loss is balanced on its gradient."""


class LengthTargeted(ABC):
    """A tokenizer that can be asked to reach a mean code length."""

    @abstractmethod
    def expected_length(self, height: int, width: int) -> float | None:
        """The mean code length that it is asked to reach on images of this size; None where its parts ask for none.

        Raises:
            UserError: It takes no images of this size.
        """


class RatioTargeted(ABC):
    """A tokenizer that can be asked to reach shares of granularities."""

    @property
    @abstractmethod
    def target_ratios(self) -> Ratios | None:
        """The shares that it is asked to reach; None where its parts ask for none."""


@dataclass(frozen=True, eq=False)
class Alternatives:
    """What a tokenizer chooses for images, and what it could have chosen instead.

    Attributes:
        decision: What it chooses, as in evaluation.
        code_maps: For each granularity, the codes of images whose every region has it, laid on the finest grid. The
            codes of a region do not depend on the granularities of others, so that these hold every mixture.
    """

    decision: GateDecision
    code_maps: Int[Tensor, "k b H W *q"]

    def mixture(self, grains: Int[Tensor, "b h w"]) -> Int[Tensor, "b H W *q"]:
        """The code maps of the images at other granularities."""
        side = self.code_maps.shape[2] // grains.shape[1]
        finest = grains.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
        chosen = finest.view(1, *finest.shape, *[1] * (self.code_maps.dim() - 4)).expand_as(self.code_maps[:1])
        return self.code_maps.gather(0, chosen)[0]


class Adaptive(ABC):
    """A tokenizer that chooses a granularity for each region, and can say what each choice would give.

    Its adaptation can be measured (`vltok.evaluation.adaptation`).
    """

    @abstractmethod
    def alternatives(self, images: Float[Tensor, "b 3 H W"]) -> Alternatives:
        """The choice for images and its alternatives, without gradient; nothing is updated.

        Raises:
            UserError: A side of the images is no multiple of the tokenizer's `divisor`.
        """
