"""The interfaces that components implement. A class here is abstract; a class that implements one is final.

```
images [b 3 H W] ── tokenizer.encode ──► Codes ── prior.loss ──► PriorLoss
labels ── prior.sample ──► Codes ── tokenizer.decode ──► images
```

Images are floats in [-1, 1]. Features and maps go **from coarse to fine**: index 0 is the coarsest granularity.
Axis letters: b image, c channel, h w grid of regions, H W pixels or the finest grid, k granularity.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from vltok.arguments import Configuration, KeepsArguments
from vltok.codes import Codes, CodeSpec, Ratios
from vltok.drawing.batches import Drawing, WantedImages
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import SamplingConfig as SamplingConfig
from vltok.drawing.config import SamplingOptions, options_for
from vltok.drawing.sampling import seed_of, streams
from vltok.errors import UserError, whole_number
from vltok.images import image_batch


def _package() -> Any:
    """The whole package, whose upper floors this one may not import: what it offers is found by name, as in a notebook.

    Bundles are written and read there; the methods here that say so too are for those who look for them on the object.
    """
    return sys.modules["vltok"]


def _loaded(interface: type, load: str, place: str | os.PathLike, options: Mapping[str, Any]) -> Any:
    loaded = getattr(_package(), load)(place, **options)
    if not isinstance(loaded, interface):
        raise UserError(f"'{place}' holds a {type(loaded).__qualname__}, not a {interface.__qualname__}")
    return loaded


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


class Tokenizer(KeepsArguments, nn.Module, ABC):
    """Turns images into codes, and codes back into images.

    Attributes:
        config: What it was built from, as recipes have it: its `class_path` and `init_args`.
    """

    config = Configuration()

    @property
    @abstractmethod
    def spec(self) -> CodeSpec:
        """What the codes may be."""

    @property
    @abstractmethod
    def divisor(self) -> int:
        """The number of pixels that the sides of an image must be multiples of."""

    @final
    @classmethod
    def from_pretrained(cls, place: str | os.PathLike, **options: Any) -> Tokenizer:
        """Load a bundle: a folder, or `user/name` of the Hugging Face Hub; the options are `vltok.load_tokenizer`'s.

        Raises:
            UserError: As `vltok.load_tokenizer`, or the bundle holds a tokenizer of another class.
        """
        return _loaded(cls, "load_tokenizer", place, options)

    @final
    def save_pretrained(self, folder: str | os.PathLike, **options: Any) -> None:
        """Write a bundle; the options are `vltok.save_tokenizer`'s.

        Raises:
            UserError: As `vltok.save_tokenizer`.
        """
        _package().save_tokenizer(self, folder, **options)

    @final
    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Write a bundle into a repository `user/name` of the Hugging Face Hub; the options are `vltok.push`'s.

        Returns:
            The address of the commit.

        Raises:
            UserError: As `vltok.push`.
        """
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / repository.rpartition("/")[2]
            self.save_pretrained(bundle)
            return _package().push(bundle, repository, **options)

    @final
    def encode(self, images: Tensor | np.ndarray | Image.Image) -> Codes:
        """The codes of one image or a batch, on the tokenizer's device.

        Args:
            images: Floats in [-1, 1] or uint8, `[b 3 H W]` or `[3 H W]`, or a Pillow image: see
                `vltok.images.image_batch`.

        Raises:
            UserError: They are no images, or of a size that the tokenizer does not take.
        """
        mine = next(itertools.chain(self.parameters(), self.buffers()), None)
        return self.encode_batch(image_batch(images, None if mine is None else mine.device))

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


class Encoder(KeepsArguments, nn.Module, ABC):
    """Images → one feature map for each factor (the hierarchical encoder E_h, section 3.2)."""

    @property
    @abstractmethod
    def factors(self) -> tuple[int, ...]:
        """The downsampling factors of the feature maps, from coarse to fine."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """The width of every feature map."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c _ _"]]:
        """The feature maps, from coarse to fine; that of factor f is H/f × W/f."""


@dataclass(frozen=True, eq=False)
class GateDecision:
    """Which granularity each region gets.

    Attributes:
        grains: The grain map, `[b h w]`, counted from coarse to fine: 0 is the coarsest granularity, K − 1 the finest.
        assignment: One-hot in value, `[b k h w]`; through it the budget reaches the gate. Without a gradient where
            nothing is learned.
        weights: One-hot in value, `[b k h w]`; multiplies the features of each granularity before they are added, so
            that its gradient says what the reconstruction teaches the gate.
        logits: The scores that were compared, `[b k h w]`, or None where there are none.
    """

    grains: Int[Tensor, "b h w"]
    assignment: Float[Tensor, "b k h w"]
    weights: Float[Tensor, "b k h w"]
    logits: Float[Tensor, "b k h w"] | None = None

    @classmethod
    def hard(
        cls, grains: Int[Tensor, "b h w"], granularities: int, logits: Float[Tensor, "b k h w"] | None = None
    ) -> GateDecision:
        """A decision without a gradient, from the grain map."""
        every = torch.arange(granularities, device=grains.device)[:, None, None]
        one_hot = (grains[:, None] == every).float()
        return cls(grains, one_hot, one_hot, logits)


class Gate(KeepsArguments, nn.Module, ABC):
    """Chooses a granularity for each region (the Dynamic Grained Coding module, section 3.2)."""

    @property
    @abstractmethod
    def granularities(self) -> int:
        """The number of granularities between which it chooses, K."""

    @property
    @abstractmethod
    def ratios(self) -> Ratios | None:
        """The shares that the gate itself is asked to keep, or None where a budget does that."""

    @abstractmethod
    def forward(self, features: Sequence[Float[Tensor, "b c _ _"]], images: Float[Tensor, "b 3 H W"]) -> GateDecision:
        """The decision for each region, from feature maps (coarse to fine) and the images."""


class Constant(ABC):
    """A gate that gives every region the same granularity, whatever the images."""

    @property
    @abstractmethod
    def granularity(self) -> int:
        """Which, counted from 0, the coarsest."""


class Calibrated(ABC):
    """A part that measures something on training images before training starts, and keeps it as part of the model."""

    @property
    @abstractmethod
    def calibrated(self) -> bool:
        """Whether it has been calibrated (or its values were loaded)."""

    @abstractmethod
    def calibrate(self, batches: Iterable[Float[Tensor, "_ 3 _ _"]]) -> None:
        """Measure on batches of training images."""


class Taught(ABC):
    """A gate that learns from what its choices would cost, which the tokenizer measures by decoding alternatives."""

    @property
    @abstractmethod
    def taught_share(self) -> float:
        """The share of the images of each training batch of which alternatives are decoded, in (0, 1]."""

    @abstractmethod
    def lessons(self, grains: Int[Tensor, "b h w"]) -> Int[Tensor, "n b h w"]:
        """The grain maps at which those images are to be decoded, given what was chosen for them."""

    @abstractmethod
    def teach(
        self,
        features: Sequence[Float[Tensor, "b c _ _"]],
        grains: Int[Tensor, "n b h w"],
        errors: Float[Tensor, "n b h w"],
    ) -> Float[Tensor, ""]:
        """The loss of what the gate expects of those images, given what was measured.

        Args:
            features: The images' feature maps, from coarse to fine.
            grains: Its lessons.
            errors: The squared error of each region at each of them, summed over its pixels and channels.
        """


@dataclass(frozen=True, eq=False)
class Alternatives:
    """What a tokenizer chooses for images, and what it could have chosen instead.

    Attributes:
        decision: What it chooses, as in evaluation.
        code_maps: For each granularity, the codes of images whose every region has it, laid on the finest grid. The
            codes of a region do not depend on the granularities of others, so that these hold every mixture.
    """

    decision: GateDecision
    code_maps: Int[Tensor, "k b H W"]

    def mixture(self, grains: Int[Tensor, "b h w"]) -> Int[Tensor, "b H W"]:
        """The code maps of the images at other granularities."""
        side = self.code_maps.shape[2] // grains.shape[1]
        finest = grains.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
        return self.code_maps.gather(0, finest[None])[0]


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


class Budget(KeepsArguments, nn.Module, ABC):
    """Keeps the use of codes near what was asked for."""

    @property
    @abstractmethod
    def factors(self) -> tuple[int, ...]:
        """The factors that it was made for, from coarse to fine; a tokenizer checks that its encoder has the same."""

    @property
    @abstractmethod
    def ratios(self) -> Ratios | None:
        """The shares that it asks for, or None where it asks for something else."""

    @abstractmethod
    def expected_length(self, regions: int) -> float:
        """The mean code length that it asks for, for images of so many regions."""

    @abstractmethod
    def forward(self, assignment: Float[Tensor, "b k h w"]) -> Float[Tensor, ""]:
        """The weighted loss of a decision's `assignment`; in training that of all processes (`batch_mean`).

        Raises:
            UserError: The assignment has another number of granularities than `factors`.
        """


@dataclass(frozen=True, eq=False)
class Quantized:
    """What a quantizer gives.

    Attributes:
        ids: The nearest code of each vector, `[b H W]`.
        vectors: The codebook's vectors, `[b c H W]`, through which the gradient passes straight.
        loss: The quantization loss, a scalar; in training on several processes, this one's share of it.
    """

    ids: Int[Tensor, "b H W"]
    vectors: Float[Tensor, "b c H W"]
    loss: Float[Tensor, ""]


class Quantizer(KeepsArguments, nn.Module, ABC):
    """Vectors → codes of a codebook (eq. 1)."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of codes, v."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The width of a code's vector, n_z."""

    @abstractmethod
    def forward(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None = None) -> Quantized:
        """Quantize. A vector counts by its weight: one that stands n times has 1/n, so that each code counts once."""

    @abstractmethod
    def lookup(self, ids: Int[Tensor, "b H W"]) -> Float[Tensor, "b c H W"]:
        """The codebook's vectors."""


class Decoder(KeepsArguments, nn.Module, ABC):
    """Vectors on the finest grid → images."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """The width of the vectors that it takes."""

    @property
    @abstractmethod
    def factor(self) -> int:
        """How many pixels a cell of the grid has along a side."""

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """The weight of the layer that gives the pixels."""

    @abstractmethod
    def forward(self, vectors: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 _ _"]:
        """The images."""


class Perceptual(KeepsArguments, nn.Module, ABC):
    """A distance between images as people see it. Its parameters are frozen."""

    @abstractmethod
    def load(self) -> None:
        """Get the weights, once, before the first use; building it, as reading a recipe does, must not need them.

        Raises:
            UserError: The weights are not to be had.
        """

    @abstractmethod
    def forward(self, reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, ""]:
        """The mean distance over the batch; 0 for equal images."""


class Discriminator(KeepsArguments, nn.Module, ABC):
    """Tells real images from reconstructions."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 _ _"]:
        """A logit for each patch: high for real ones."""


@dataclass(frozen=True, eq=False)
class PriorLoss:
    """What a prior's loss is made of.

    Attributes:
        total: What training minimises, a scalar.
        parts: Mean loss of each kind of token, by name; of a likelihood in nats.
        counts: How many tokens each part is the mean of.
        weight: How many tokens `total` is the mean of, by which it counts among other batches and processes; None for
            as many as there are codes.
        likelihood: Whether the parts add up to the negative log-likelihood of the codes. Only then they are given in
            bits an image, and compared with other priors'.
    """

    total: Float[Tensor, ""]
    parts: Mapping[str, Tensor]
    counts: Mapping[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    likelihood: bool = True


class Prior(KeepsArguments, nn.Module, ABC):
    """A distribution over codes.

    Attributes:
        conditioning: The classes whose images it can draw; `Conditioning()` where it knows none.
        sampling: The frozen dataclass of its options for drawing, all of which have defaults.
        config: What it was built from, as recipes have it: its `class_path` and `init_args`.
    """

    config = Configuration()
    conditioning: Conditioning

    @final
    @classmethod
    def from_pretrained(cls, place: str | os.PathLike, **options: Any) -> Prior:
        """Load a bundle: a folder, or `user/name` of the Hugging Face Hub; the options are `vltok.load_prior`'s.

        Raises:
            UserError: As `vltok.load_prior`, or the bundle holds a prior of another class.
        """
        return _loaded(cls, "load_prior", place, options)

    @final
    def save_pretrained(self, folder: str | os.PathLike, tokenizer: str | os.PathLike, **options: Any) -> None:
        """Write a bundle; the options are `vltok.save_prior`'s.

        Args:
            folder: The folder to write.
            tokenizer: The bundle of the tokenizer whose codes it models.
            options: What else `vltok.save_prior` takes.

        Raises:
            UserError: As `vltok.save_prior`, or there is no such tokenizer.
        """
        package = _package()
        places = package.places_of(tokenizer, folder)
        package.save_prior(self, folder, package.fingerprint(tokenizer), places, **options)

    @final
    def push_to_hub(self, repository: str, tokenizer: str | os.PathLike, **options: Any) -> str:
        """Write a bundle into a repository `user/name` of the Hugging Face Hub; the options are `vltok.push`'s.

        Args:
            repository: ``user/name``.
            tokenizer: The bundle of the tokenizer whose codes it models; the Hub is told where it is if it is there.
            options: What else `vltok.push` takes.

        Returns:
            The address of the commit.

        Raises:
            UserError: As `vltok.push`, or there is no such tokenizer.
        """
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / repository.rpartition("/")[2]
            self.save_pretrained(bundle, tokenizer)
            return _package().push(bundle, repository, **options)

    sampling: ClassVar[type[SamplingOptions]] = SamplingOptions

    @property
    @final
    def classes(self) -> int | None:
        """The number of classes whose images it can draw, or None where it knows none."""
        return self.conditioning.classes

    @property
    @abstractmethod
    def spec(self) -> CodeSpec:
        """The codes that it models."""

    @abstractmethod
    def loss(self, codes: Codes) -> PriorLoss:
        """The training loss of a packed batch.

        Raises:
            UserError: The prior knows classes, and the codes have no labels, or others: see `Codes.require_labels`.
        """

    @abstractmethod
    def drawing(self, sampling: SamplingOptions) -> Drawing:
        """How images are drawn: a whole batch at once (`BatchDrawing`), or a step of all of them after the other
        (`vltok.priors.stepwise.StepwiseDrawing`).

        Args:
            sampling: The prior's own options, of its class `sampling`.

        Raises:
            UserError: A length that no image can have.
        """

    @final
    @torch.no_grad()
    def sample(
        self,
        labels_or_count: Int[Tensor, " b"] | int,
        sampling: SamplingOptions,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        first_image: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> Codes:
        """Draw the codes of images, in the order asked for.

        Each image has a random stream of its own, so that it does not depend on `batch_size`.

        Args:
            labels_or_count: The class of each image, or how many to draw.
            sampling: How tokens are drawn: the prior's own options, as in ``prior.sampling(top_k=5)``, or others'.
            generator: Gives the seed of the streams: one number is drawn from it. PyTorch's default one where None.
            batch_size: The most images that are drawn at the same time; all where None.
            first_image: The number of the first image's stream: images 8 to 15 of one draw are those of another with
                an equal seed and `first_image` 8.
            progress: Called with the number of images that have been finished since the last call.

        Raises:
            UserError: Labels where the prior knows no classes, labels that it does not know, an option that it does
                not have, or a length that no image can have.
        """
        sampling = options_for(self.sampling, type(self).__name__, sampling)
        drawing = self.drawing(sampling)
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size, 1)
        first_image = whole_number("first_image", first_image)
        device = next(self.parameters()).device
        labels = self.conditioning.to_draw(labels_or_count, sampling.guidance, device)
        count = len(labels)
        numbers = torch.arange(count, device=device) + first_image
        images = WantedImages(numbers, streams(seed_of(generator), numbers), labels)
        order: list[int] = []
        parts: list[Codes] = []
        for places, codes in drawing.finished(images, min(batch_size or count, count)):
            order += places
            parts.append(codes)
            if progress is not None:
                progress(len(places))
        codes = Codes.concatenate(parts)[torch.tensor(order, device=device).argsort()]
        return replace(codes, labels=labels) if isinstance(labels_or_count, Tensor) else codes


class Ordered(ABC):
    """A prior that models the codes of an image one after another, in an order that it can tell."""

    @abstractmethod
    def drawing_order(self, codes: Codes) -> Int[Tensor, " t"]:
        """When each code is drawn: its place among the codes of its image, counted from 0.

        It is the order that training shows; a prior that draws positions may leave it now and then.

        Raises:
            UserError: They are no codes of the prior's `spec`.
        """


class Standalone(ABC):
    """A tokenizer or prior whose recipe points at something outside of it, such as a pretrained model.

    Its bundle holds the weights, and must be all that is needed to build it.
    """

    @property
    @abstractmethod
    def standalone_arguments(self) -> Mapping[str, Any]:
        """The constructor's arguments that bundles give it in place of the recipe's: plain values, by name."""
