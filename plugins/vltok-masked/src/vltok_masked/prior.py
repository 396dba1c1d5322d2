"""The prior: masked codes of a known grain map, of which the surest are drawn first.

```
grain map   ⟨class⟩ g₀ g₁ … ─ causal transformer ─► g₀ g₁ g₂ …
contents    C₀ ⟨mask⟩ C₂ ⟨mask⟩ … ─ embedding ─┐
places      p₀ p₁     p₂ p₃     … ─ embedding ─(+)─ Bidirectional ─ head ─► C₁ and C₃
class       one for all codes     ─ embedding ─┘
```

After MaskGIT (Chang et al., 2022, https://arxiv.org/abs/2202.04200), whose codes all lie on one grid. Here an image has
as many codes as its grain map says, and a place is a cell of the position map of its code's granularity.

Axis letters: b image, t code (packed over the batch), n row (an image, or with guidance an image with its class and one
without), d model width, v vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.code_maps import require_ids
from vltok.codes import Codes, CodeSpec
from vltok.drawing.batches import BatchDrawing, WantedImages
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import VariableLengthSampling
from vltok.drawing.keeping import Kept
from vltok.drawing.sampling import Guidance, draw_content, uniforms
from vltok.errors import UserError, whole_number
from vltok.interfaces import AnyGrid, Inpaints, Prior, PriorLoss, TextEncoder
from vltok.links import Default, Link
from vltok.nn.attention import Packing
from vltok.nn.heads import Head
from vltok.nn.modes import evaluating
from vltok.nn.places import PlaceTable
from vltok.nn.sequence_model import SequenceModel
from vltok.nn.transformer import Transformer, initialise
from vltok.priors.condition_reader import ConditionReader
from vltok.priors.grids import Grids, on_their_grid, only_grid, placed
from vltok.priors.layout import Layout
from vltok.priors.lengths import RasterPlan
from vltok.priors.stepwise import in_precision
from vltok_masked.grains import GrainModel
from vltok_masked.masking import cosine, fixed_mask, random_mask, ranks
from vltok_masked.transformer import Bidirectional, BidirectionalModel


@dataclass(frozen=True)
class MaskedSampling(VariableLengthSampling):
    """How images are drawn. What is said of positions is meant of granularities.

    Attributes:
        steps: In how many steps the codes of an image are unmasked.
        choice_temperature: How much chance there is in which codes are taken first, next to how sure the model is of
            them; it falls to 0 until the last step, and is 0 where `top_k` is 1.

    Raises:
        UserError: A value outside its range, or more than one control of the length.
    """

    steps: int = 12
    choice_temperature: float = 4.5

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", whole_number("steps", self.steps, 1))
        if not 0 <= self.choice_temperature < math.inf:
            raise UserError(f"choice_temperature must be a number of at least 0, not {self.choice_temperature}")


class Masked(Prior, AnyGrid, Inpaints):
    """A prior that unmasks the codes of an image in a few steps, each step the codes of which it is surest.

    Its loss is that of masked codes, which is no likelihood: no bits can be told.

    Args:
        spec: The codes that it models, on a grid of regions. Where that is known, places have learned embeddings; where
            `spec.regions` is None, images have any grid, and embeddings are made of rows and columns.
        transformer: Sees all codes of an image.
        grain_transformer: Walks over the granularities of its regions.
        dropout: Dropout of embeddings; a recipe's transformers have the same unless it says otherwise.
        classes: Number of classes; None for an unconditional model.
        label_dropout: Probability with which training hides an image's class, text or embedding. Above 0 the model also
            learns the unconditional distribution, which classifier-free guidance needs.
        text_encoder: Reads the texts that describe images, on which they then depend; None reads none.
        embedding_size: How many numbers the embeddings of images have, on which these then depend; None reads none.

    Raises:
        UserError: Codes on no grid or of several ids, transformers of two widths, classes and texts, or label dropout
            without either.
    """

    sampling = MaskedSampling
    links = (
        Default("grain_transformer.layers", 2),
        *(Link(f"grain_transformer.{key}", f"transformer.{key}") for key in ("width", "heads")),
        *(Link(f"{name}.dropout", "dropout") for name in ("transformer", "grain_transformer")),
    )

    grids: Grids[Layout]
    places: int
    offsets: Tensor
    place_embedding: nn.Module

    def __init__(
        self,
        spec: CodeSpec,
        transformer: Bidirectional | BidirectionalModel,
        grain_transformer: Transformer | SequenceModel,
        dropout: float = 0.1,
        classes: int | None = None,
        label_dropout: float = 0.0,
        text_encoder: TextEncoder | None = None,
        embedding_size: int | None = None,
    ) -> None:
        super().__init__()
        if not spec.gridded:
            raise UserError("masked models codes on a grid of regions, and these lie on none: use sequence")
        if spec.codebooks > 1:
            raise UserError(f"masked models codes of one id, not of {spec.codebooks}: use raster-scan")
        if grain_transformer.width != transformer.width:
            raise UserError(
                f"grain_transformer.width is {grain_transformer.width}, but must be that of transformer, "
                f"{transformer.width}: leave it out"
            )
        self.spec = spec
        condition_reader = ConditionReader.of(text_encoder, embedding_size, transformer.width)
        self.conditioning = Conditioning(classes, label_dropout, condition_reader)
        self.dropout = dropout
        width, starts = transformer.width, self.conditioning.starts
        offsets = torch.zeros(spec.granularities, dtype=torch.long)
        if spec.any_grid:
            self.grids = Grids(spec, Layout)
        else:
            layout = Layout(spec)
            self.places, offsets = layout.count, layout.offsets
        self.register_buffer("offsets", offsets, persistent=False)
        # the last row is ⟨mask⟩
        self.content_embedding = nn.Embedding(spec.codebook_size + 1, width)
        granularities = spec.granularities
        self.place_embedding = (
            PlaceTable(width, kinds=granularities) if spec.any_grid else nn.Embedding(self.places, width)
        )
        self.class_embedding = nn.Embedding(starts, width)
        self.transformer = transformer
        self.content_head = Head(width, spec.codebook_size)
        self.grain_model = GrainModel(spec, grain_transformer, dropout, starts)
        initialise(self)
        self.condition_reader = condition_reader

    def forward(
        self,
        codes: Codes,
        masked: Bool[Tensor, " t"],
        labels: Int[Tensor, " b"],
        conditions: Float[Tensor, "b ..."] | None,
        packing: Packing,
    ) -> Float[Tensor, "t d"]:
        """What the head of contents reads.

        Args:
            codes: The codes, of which those that are masked may be any.
            masked: Which are not seen.
            labels: The class of each image.
            conditions: What the reader knows of the text or embedding of each.
            packing: Where images lie.
        """
        contents = codes.ids.long().masked_fill(masked, self.spec.codebook_size)
        embedded = self.content_embedding(contents) + self.place_embedding(self.places_of(codes))
        embedded = embedded + self.class_embedding(labels)[packing.images]
        if self.condition_reader is not None:
            embedded = self.condition_reader.told(embedded, conditions, packing)
        return self.transformer(F.dropout(embedded, self.dropout, self.training), packing)

    def places_of(self, codes: Codes) -> Int[Tensor, " t"]:
        """Where each code lies: the places of all granularities' position maps are counted one after another."""
        return self.offsets[codes.granularities(self.spec)] + codes.positions(self.spec)

    def on_grid(self, grid: tuple[int, int]) -> Masked:
        """The prior of the images of one grid. See `AnyGrid.on_grid`."""
        if not self.spec.any_grid:
            return only_grid(self, grid)
        on = self.grids(grid, self.offsets.device)
        grains = self.grain_model.on_grid(on.spec, on.maps[0])
        prior = placed(self, on.spec, place_embedding=self.place_embedding(on.maps), grain_model=grains)
        prior.places, prior.offsets = on.ordering.count, on.ordering.offsets
        return prior

    @on_their_grid
    def loss(self, codes: Codes) -> PriorLoss:
        """Nats of each masked code, and of each region's granularity. In training codes are masked at random, else
        always the same ones.

        Raises:
            UserError: The codes lie on no grid, or on one of another size than the spec's, or they have several ids, or
                labels are wrong.
        """
        grains, ids = codes.require_grains(), require_ids(codes.ids, self.spec)
        if tuple(grains.shape[1:]) != self.spec.grid:
            raise UserError(f"these codes have {tuple(grains.shape[1:])} regions, but the prior {self.spec.grid}")
        labels = self.conditioning.of_codes(codes, self.training)
        packing = Packing(codes.lengths.long(), codes.on_host.lengths.tolist())
        masked = random_mask(packing) if self.training else fixed_mask(ids, packing)
        conditions = None if self.condition_reader is None else self.condition_reader.of_codes(codes, labels)
        nats = self.content_head.nats(self(codes, masked, labels, conditions, packing), ids)
        granularities = self.grain_model.nats(grains, labels, self.condition_reader, conditions)
        sums = {"content": (nats * masked).sum(), "granularity": granularities.sum()}
        counts = {"content": masked.sum(), "granularity": torch.full_like(labels[:1], grains.numel())[0]}
        weight = counts["content"] + counts["granularity"]
        return PriorLoss(
            total=(sums["content"] + sums["granularity"]) / weight,
            parts={name: value.detach() / counts[name] for name, value in sums.items()},
            counts=counts,
            weight=weight,
            likelihood=False,
        )

    def drawing(self, sampling: MaskedSampling) -> BatchDrawing:
        """Draws batch by batch: grain maps region by region, then codes in `sampling.steps`.

        Raises:
            UserError: A length that no image can have.
        """
        return self.inpainting(sampling, None)

    def inpainting(self, sampling: MaskedSampling, kept: Kept | None) -> BatchDrawing:
        """Draws what is not kept: its codes are masked from the start. See `Inpaints.inpainting`."""
        plan = RasterPlan.of(sampling, self.spec, self.offsets.device)
        return BatchDrawing(partial(in_precision(self, sampling.precision)._draw, sampling, plan, kept))

    def _draw(self, sampling: MaskedSampling, plan: RasterPlan, kept: Kept | None, images: WantedImages) -> Codes:
        """Draw images at the same time."""
        guidance = Guidance(sampling.guidance)
        labels = guidance.labels(images.labels, self.conditioning.nothing)
        # the precision that was asked for decides, not one around the call
        with evaluating(self), torch.autocast(labels.device.type, enabled=False):
            grains = self.grain_model.draw(images, labels, self.condition_reader, sampling, guidance, plan, kept)
            reader = self.condition_reader
            conditions = None if reader is None else reader.of_rows(images.conditions, len(labels))
            lengths = plan.costs[grains].sum((1, 2))
            known = lengths.tolist()
            packing = Packing(lengths, known)
            codes = Codes(packing.steps, lengths, grains)
            places = self.places_of(codes)
            masked, ids = torch.ones_like(places, dtype=torch.bool), torch.zeros_like(places)
            if kept is not None:
                ids = kept.laid(self.spec)[places]
                masked = ids < 0
            rows = Packing(guidance.rows(lengths), known * (len(labels) // len(images)))
            unknown = ids.new_zeros(len(images)).index_add(0, packing.images, masked.long())
            for step in range(sampling.steps):
                hidden = self(
                    Codes(guidance.rows(ids), guidance.rows(lengths), guidance.rows(grains)),
                    guidance.rows(masked),
                    labels,
                    conditions,
                    rows,
                )
                logits = guidance.logits(self.content_head(hidden))
                # numbers of each image's stream behind those of its grain map: two for each place and step
                first = self.grain_model.regions + 2 * step * self.places + places
                streams = images.streams[packing.images]
                drawn = draw_content(logits, sampling, uniforms(streams, first))
                progress = (step + 1) / sampling.steps
                noise = 0.0 if sampling.top_k == 1 else sampling.choice_temperature * (1 - progress)
                sure = logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0]
                sure = sure + noise * _gumbel(uniforms(streams, first + self.places))
                left = (unknown * cosine(progress)).floor() if step + 1 < sampling.steps else 0 * unknown
                stays = masked & (ranks(sure.masked_fill(~masked, torch.inf), packing) < left[packing.images])
                ids = torch.where(masked & ~stays, drawn, ids)
                masked = stays
        guidance.watch.require_numbers()
        return Codes(ids, lengths, grains)


def _gumbel(uniform: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """Gumbel noise from numbers that are uniform in [0, 1)."""
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
