"""What a prior is, and what only some priors can do."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.drawing.batches import Drawing
from vltok.drawing.conditioning import Conditioning, Wanted
from vltok.drawing.config import SamplingOptions, VariableLengthSampling, options_for
from vltok.drawing.keeping import Kept
from vltok.drawing.sampler import Sampler
from vltok.errors import UserError
from vltok.interfaces.bundled import Bundled, package


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


class Prior(Bundled):
    """A distribution over codes.

    Attributes:
        spec: The codes that it models.
        conditioning: The classes whose images it can draw, or whether it reads texts or embeddings; `Conditioning()`
            for none.
        sampling: The frozen dataclass of its options for drawing, all of which have defaults.
    """

    spec: CodeSpec
    conditioning: Conditioning
    sampling: ClassVar[type[SamplingOptions]] = SamplingOptions
    _load = "load_prior"

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
        places = package().places_of(tokenizer, folder)
        package().save_prior(self, folder, package().fingerprint(tokenizer), places, **options)

    @property
    @final
    def classes(self) -> int | None:
        """The number of classes whose images it can draw, or None where it knows none."""
        return self.conditioning.classes

    @property
    @final
    def asks_for_grid(self) -> bool:
        """Whether it draws images of any grid, and must be told of which."""
        return self.spec.any_grid and isinstance(self, AnyGrid)

    @abstractmethod
    def loss(self, codes: Codes) -> PriorLoss:
        """The training loss of a packed batch.

        Raises:
            UserError: The prior knows classes, and the codes have no labels, or others (`Codes.require_labels`); or it
                reads texts or embeddings, and they have none.
        """

    @abstractmethod
    def drawing(self, sampling: Any) -> Drawing:
        """How images are drawn: a whole batch at once (`BatchDrawing`), or a step of all of them after the other
        (`vltok.priors.stepwise.StepwiseDrawing`).

        Args:
            sampling: The prior's own options, of its class `sampling`.

        Raises:
            UserError: A length that no image can have.
        """

    @final
    def sampler(self, sampling: SamplingOptions, kept: Kept | None = None) -> Sampler:
        """What draws images with some options, call after call: as `sample`, which makes one for each call.

        It keeps what drawing needs besides the prior, such as a copy of its matrices in another precision or what was
        made of them for a grid, and so does not follow weights that change.

        Args:
            sampling: How tokens are drawn: the prior's own options, as in ``prior.sampling(top_k=5)``, or others'.
            kept: What every image keeps of one that is given; None for nothing.

        Raises:
            UserError: An option that the prior does not have, a length that no image can have, no grid of regions for a
                prior of any grid, or another one than the prior's; or something is kept that is none of the prior's
                codes, beside a control of the length, or by a prior that cannot do so.
        """
        sampling = options_for(self.sampling, type(self).__name__, sampling)
        device = next(self.parameters()).device
        prior = self._of_grid(sampling.regions, kept)
        drawing = prior.drawing(sampling) if kept is None else prior._around(kept, sampling, device)
        return Sampler(drawing, self.conditioning, sampling.guidance, device)

    @final
    @torch.no_grad()
    def _of_grid(self, regions: tuple[int, int] | None, kept: Kept | None) -> Prior:
        """The prior that draws images of the regions that are asked for, or of those of which a part is given."""
        own = self.spec.regions
        if not (self.spec.any_grid and isinstance(self, AnyGrid)):
            if regions not in (None, own):
                has = "codes on no grid" if not self.spec.gridded else f"images of {own or 'its own'} regions"
                raise UserError(f"regions is {regions}, but this prior draws {has}: leave it out")
            return self
        grid = regions
        if kept is not None:
            rows, columns = kept.contents.shape
            grid = rows, columns
        if grid is None:
            raise UserError(
                "this prior draws images of any size: say of how many rows and columns of regions, as in "
                "regions=(16, 16)"
            )
        if regions not in (None, grid):
            raise UserError(f"regions is {regions}, but the image of which a part is kept has {grid}: leave it out")
        return self.on_grid(grid)

    @final
    def _around(self, kept: Kept, sampling: SamplingOptions, device: torch.device) -> Drawing:
        """How images are drawn of which a part is given."""
        if not isinstance(self, Inpaints):
            raise UserError(
                f"{type(self).__name__} draws whole images and can keep no part of one: use a prior that can, such as "
                "raster-scan"
            )
        if isinstance(sampling, VariableLengthSampling):
            for name in ("codes", "max_codes", "ratios"):
                if getattr(sampling, name) is not None:
                    raise UserError(f"{name} sets the length of an image, of which a part is kept here: leave it out")
        kept.codes.validate(self.spec)
        return self.inpainting(sampling, kept.to(device))

    @final
    def sample(
        self,
        wanted: Wanted,
        sampling: SamplingOptions,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        first_image: int = 0,
        progress: Callable[[int], None] | None = None,
        kept: Kept | None = None,
    ) -> Codes:
        """Draw the codes of images, in the order asked for.

        Each image has a random stream of its own, so that it does not depend on `batch_size`.

        Args:
            wanted: The class of each image, or a text that describes it, empty for none, or its embedding, `[b e]`; or
                how many to draw.
            sampling: How tokens are drawn: the prior's own options, as in ``prior.sampling(top_k=5)``, or others'.
            generator: Gives the seed of the streams: one number is drawn from it. PyTorch's default one where None.
            batch_size: The most images that are drawn at the same time; all where None.
            first_image: The number of the first image's stream: images 8 to 15 of one draw are those of another with
                an equal seed and `first_image` 8.
            progress: Called with the number of images that have been finished since the last call.
            kept: What every image keeps of one that is given; None for nothing. See `Inpaints`.

        Raises:
            UserError: Labels, texts or embeddings where the prior knows none, labels that it does not know, or as
                `sampler`.
        """
        return self.sampler(sampling, kept)(wanted, generator, batch_size, first_image, progress)


class AnyGrid(ABC):
    """A prior that models images of any grid of regions, where its `spec` names none: each batch of codes has one."""

    spec: CodeSpec

    @abstractmethod
    def on_grid(self, grid: tuple[int, int]) -> Prior:
        """The prior of the images of one grid, such as the batch at hand: its `spec` names that as `regions`.

        It has the very same parameters, which get its gradients. What was made of them stays: asked for without
        gradients, it serves until they change. It is not saved: the prior of any grid is.

        Args:
            grid: The rows and columns of regions. They may be more than were ever trained on.

        Raises:
            UserError: The prior models images of another grid alone.
        """


class Inpaints(ABC):
    """A prior that draws images of which a part is given."""

    @abstractmethod
    def inpainting(self, sampling: Any, kept: Kept) -> Drawing:
        """How images are drawn that keep the granularity of some regions, and the codes of some of those.

        Args:
            sampling: The prior's own options, of its class `sampling`, without a control of the code length.
            kept: What stays, on the prior's device: codes of its `spec`.
        """


class Ordered(ABC):
    """A prior that models the codes of an image one after another, in an order that it can tell."""

    @abstractmethod
    def drawing_order(self, codes: Codes) -> Int[Tensor, " t"]:
        """When each code is drawn: its place among the codes of its image, counted from 0.

        It is the order that training shows; a prior that draws positions may leave it now and then.

        Raises:
            UserError: They are no codes of the prior's `spec`.
        """


#: Chooses what comes next, given the logits of all that may, -inf where that cannot, and which section of an image it
#: belongs to, counted from the coarsest; None where it does not know.
Choose = Callable[[Float[Tensor, " n"], int], int | None]


class Codable(ABC):
    """A prior that makes an image of choices, one after another, so that an entropy coder can tell them."""

    @abstractmethod
    def choices(self, codes: Codes) -> list[int]:
        """The choices that make an image, in the order in which `walk` asks for them.

        Args:
            codes: A batch of one.

        Raises:
            UserError: They are no codes of the prior's `spec`.
        """

    @abstractmethod
    def walk(self, choose: Choose) -> tuple[Codes, Bool[Tensor, "h w"]]:
        """The image that is chosen, a batch of one, and which of its regions are known.

        It computes the same whoever chooses, one image at a time, without gradient. Where the next choice is not known
        it stops; a region that is not known then has one code of the coarsest granularity, which means nothing.

        Raises:
            UserError: Images without a class were never learned, or logits are no numbers.
        """
