"""The raster-scan design of supplementary 3.2: region by region, the stacked transformers of DQ-Transformer.

```
contents  ⟨sos⟩ C₀ C₁ … ─ embedding ─┐
regions   ⟨sos⟩ R₀ R₁ … ─ embedding ─┤
insides   ⟨sos⟩ I₀ I₁ … ─ embedding ─(+)─ Position-Transformer ─ H ─┬─ head ─► granularity where a region opens
steps     0     1  2  … ─ embedding ─┘                              │
regions   R₀ R₁ R₂ … ─ embedding ─┐                                 │
insides   I₀ I₁ I₂ … ─ embedding ─(+)──────────────────────────────(+)─ Content-Transformer ─ head ─► C₀ C₁ C₂ …
```

A code's position has two levels: its region, and its place inside the region, which each granularity numbers apart.
In raster order most of it is implied. Inside a region the next place follows from the last one, and after a region
comes the next one: only *which granularity* a region opens with is news. That alone is predicted, drawn and counted in
the likelihood; both levels of every position are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.code_maps import for_each_id
from vltok.codes import Codes, CodeSpec
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import VariableLengthSampling
from vltok.drawing.sampling import Guidance, draw_position
from vltok.interfaces import AnyGrid, Choose, Codable, Inpaints, Kept, Ordered, Prior, PriorLoss, TextEncoder
from vltok.nn.code_heads import CodeHead, embed_codes
from vltok.nn.heads import Head
from vltok.nn.places import STEP_FEATURES, PlaceTable
from vltok.nn.sequence_model import KeyValueCache, SequenceModel
from vltok.nn.transformer import Transformer, initialise
from vltok.priors.choosing import Chooser, CodeChooser, Drawn, Told, raster_choices, walked
from vltok.priors.condition_reader import ConditionReader
from vltok.priors.grids import Grids, on_their_grid, only_grid, placed
from vltok.priors.keeping import Keeping
from vltok.priors.lengths import RasterPlan
from vltok.priors.losses import nats_per_code
from vltok.priors.orderings import RasterOrder, RasterSequences, preceding
from vltok.priors.parts import common_width, links_between, moved_to
from vltok.priors.stepwise import StepInputs, Steps, StepwiseDrawing, in_precision


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the raster-scan prior predicts, and what was to be predicted.

    Attributes:
        granularities: Logits of each code's granularity, `[t k]`: news where the code opens a region.
        opens: Whether each code opens a region, `[t]`.
        contents: Logits of each code, given its position, `[t v]`; of each of several ids, `[t q v]`.
        tokens: The codes.
    """

    granularities: Float[Tensor, "t k"]
    opens: Bool[Tensor, " t"]
    contents: Float[Tensor, "t *q v"]
    tokens: RasterSequences


class RasterScan(Prior, AnyGrid, Ordered, Codable, Inpaints):
    """A prior over codes of several granularities that walks from region to region.

    The paper's own could not draw images in batches; here each image keeps its own place in the walk. Without
    transformers of its own a recipe gets as many parameters as the base DQ-Transformer, within 2%.

    Args:
        spec: The codes that it models, on a grid. Where that is known, regions and steps have learned embeddings; where
            `spec.regions` is None, images have any grid, and embeddings are made of rows and columns.
        position_transformer: Gives what a region's granularity depends on.
        content_transformer: Gives what the next code depends on.
        dropout: Dropout of embeddings; a recipe's transformers have the same unless it says otherwise.
        classes: Number of classes; None for an unconditional model.
        label_dropout: Probability with which training hides an image's class, text or embedding. Above 0 the model also
            learns the unconditional distribution, which classifier-free guidance needs.
        text_encoder: Reads the texts that describe images, on which they then depend; None reads none.
        embedding_size: How many numbers the embeddings of images have, on which these then depend; None reads none.

    Raises:
        UserError: Codes on no grid, transformers of two widths, or label dropout without classes.
    """

    sampling = VariableLengthSampling
    links = links_between(position_transformer=6, content_transformer=18)
    former_arguments = moved_to(position_transformer="position_layers", content_transformer="content_layers")

    grids: Grids[RasterOrder]
    ordering: RasterOrder
    region_embedding: nn.Module
    step_embedding: nn.Module

    def __init__(
        self,
        spec: CodeSpec,
        position_transformer: Transformer | SequenceModel,
        content_transformer: Transformer | SequenceModel,
        dropout: float = 0.1,
        classes: int | None = None,
        label_dropout: float = 0.0,
        text_encoder: TextEncoder | None = None,
        embedding_size: int | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        width = common_width(position_transformer=position_transformer, content_transformer=content_transformer)
        if spec.any_grid:
            self.grids = Grids(spec, RasterOrder)
        else:
            self.ordering = RasterOrder(spec)
        condition_reader = ConditionReader.of(text_encoder, embedding_size, width)
        self.conditioning = Conditioning(classes, label_dropout, condition_reader)
        self.dropout = dropout
        self.content_embedding = nn.Embedding(spec.codebooks * (spec.content_start + self.conditioning.starts), width)
        # the last row of each is ⟨sos⟩
        self.region_embedding = (
            PlaceTable(width, others=1) if spec.any_grid else nn.Embedding(self.ordering.layout.regions + 1, width)
        )
        self.inside_embedding = nn.Embedding(sum(spec.codes_per_region) + 1, width)
        self.step_embedding = (
            PlaceTable(width, STEP_FEATURES) if spec.any_grid else nn.Embedding(spec.longest_length, width)
        )
        self.position_transformer = position_transformer
        self.content_transformer = content_transformer
        self.position_head = Head(width, spec.granularities, position_transformer.head_norm)
        self.content_head = CodeHead(width, spec.codebook_size, content_transformer.head_norm, spec.codebooks)
        initialise(self)
        self.condition_reader = condition_reader

    @on_their_grid
    def forward(self, codes: Codes) -> Predictions:
        """Predict every code of each image, and each region's granularity, from the codes before it."""
        positions, contents, opens, tokens = self._hidden(codes)
        logits = self.content_head.code_logits(contents, tokens.contents)
        return Predictions(self.position_head(positions), opens, logits, tokens)

    def _hidden(
        self, codes: Codes
    ) -> tuple[Float[Tensor, "t d"], Float[Tensor, "t d"], Bool[Tensor, " t"], RasterSequences]:
        """What the heads of granularities and contents read, which codes open a region, and the codes."""
        tokens, layout = self.ordering(codes), self.ordering.layout
        packing = tokens.packing
        labels = self.conditioning.of_codes(codes, self.training)
        regions, insides = layout.region[tokens.places], layout.inside[tokens.places]
        embedded = self.embed(
            preceding(tokens.contents, for_each_id(self.spec.content_start + labels, self.spec), packing),
            preceding(regions, torch.full_like(labels, layout.regions), packing),
            preceding(insides, torch.full_like(labels, layout.insides), packing),
            packing.steps,
        )
        if self.condition_reader is not None:
            embedded = self.condition_reader.told(embedded, self.condition_reader.of_codes(codes, labels), packing)
        positions = self.position_transformer(F.dropout(embedded, self.dropout, self.training), packing)
        contents = self.content_transformer(positions + self.embed_position(regions, insides), packing)
        opens = insides == layout.inside_offsets[layout.granularity[tokens.places]]
        return positions, contents, opens, tokens

    def on_grid(self, grid: tuple[int, int]) -> RasterScan:
        """The prior of the images of one grid. See `AnyGrid.on_grid`."""
        if not self.spec.any_grid:
            return only_grid(self, grid)
        on = self.grids(grid, self.content_embedding.weight.device)
        return placed(
            self,
            on.spec,
            ordering=on.ordering,
            region_embedding=self.region_embedding(on.maps[:1]),
            step_embedding=self.step_embedding([on.steps]),
        )

    @on_their_grid
    def loss(self, codes: Codes) -> PriorLoss:
        """The negative log-likelihood in nats a code; `position` is that of a region's granularity."""
        positions, contents, opens, tokens = self._hidden(codes)
        granularities = self.ordering.layout.granularity[tokens.places]
        position = (self.position_head.nats(positions, granularities) * opens).sum()
        content = self.content_head.code_nats(contents, tokens.contents).sum()
        return nats_per_code(
            codes,
            {"position": position, "content": content},
            {"position": len(codes) * self.ordering.layout.regions, "content": tokens.packing.total},
        )

    @on_their_grid
    def drawing_order(self, codes: Codes) -> Int[Tensor, " t"]:
        """When each code is drawn. See `Ordered.drawing_order`."""
        return self.ordering.steps(codes)

    def drawing(self, sampling: VariableLengthSampling) -> StepwiseDrawing:
        """Draws code by code. Every draw decodes: each region has one granularity and all codes of it.

        The temperature, top-k and top-p of positions are those of granularities.

        Raises:
            UserError: A length that no image can have.
        """
        return StepwiseDrawing(RasterScanSteps(in_precision(self, sampling.precision), sampling))

    def inpainting(self, sampling: VariableLengthSampling, kept: Kept) -> StepwiseDrawing:
        """Draws as ever, and writes what is kept in place of what was drawn there. See `Inpaints.inpainting`."""
        prior, keeping = in_precision(self, sampling.precision), Keeping(kept, self.spec)
        return StepwiseDrawing(RasterScanSteps(prior, sampling, keeping=keeping))

    @on_their_grid
    def choices(self, codes: Codes) -> list[int]:
        """The choices that make an image. See `Codable.choices`."""
        return raster_choices(self.ordering, codes)

    def walk(self, choose: Choose) -> tuple[Codes, Bool[Tensor, "h w"]]:
        """The image that is chosen. See `Codable.walk`."""
        return walked(RasterScanSteps(self, self.sampling(), Told(choose)), self.ordering.layout)

    def embed(
        self,
        contents: Int[Tensor, " n *q"],
        regions: Int[Tensor, " n"],
        insides: Int[Tensor, " n"],
        steps: Int[Tensor, " n"],
    ) -> Float[Tensor, "n d"]:
        """What the Position-Transformer reads."""
        embedded = embed_codes(self.content_embedding, contents)
        return embedded + self.embed_position(regions, insides) + self.step_embedding(steps)

    def embed_position(self, regions: Int[Tensor, " n"], insides: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The embedding of both levels of positions, which both transformers read."""
        return self.region_embedding(regions) + self.inside_embedding(insides)


@dataclass(frozen=True, eq=False)
class RasterScanState:
    """Images under way.

    Attributes:
        content: The last code, `[b]` or `[b q]`.
        region: Its region; beyond the last one before there is a code, `[b]`.
        inside: Its place inside the region; likewise, `[b]`.
        left: How many codes its region still lacks, `[b]`.
        counts: The regions of each granularity, the last one included, `[b k]`.
        laid: The codes drawn, at their places; the last column is for what follows a finished image, `[b p+1]` or
            `[b p+1 q]`.
    """

    content: Int[Tensor, " b *q"]
    region: Int[Tensor, " b"]
    inside: Int[Tensor, " b"]
    left: Int[Tensor, " b"]
    counts: Int[Tensor, "b k"]
    laid: Int[Tensor, "b _ *q"]


class RasterScanSteps(Steps[RasterScanState]):
    """The step that draws one code of each image, and before it the granularity of a region that it opens.

    Args:
        prior: The model.
        sampling: How granularities and codes are drawn.
        choose: Who chooses them; chance by default.
        keeping: What is given of every image; None for nothing.

    Raises:
        UserError: A length that no image can have.
    """

    prior: RasterScan

    def __init__(
        self,
        prior: RasterScan,
        sampling: VariableLengthSampling,
        choose: Chooser | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self.prior = prior
        self.keeping = keeping
        self.choose = choose or Drawn(sampling)
        self.layout = prior.ordering.layout
        self.guidance = Guidance(sampling.guidance)
        self.device = self.layout.region.device
        self.longest = prior.spec.longest_length
        self.draws = 1 + prior.spec.codebooks  # a granularity and the ids of a content
        self.plan = RasterPlan.of(sampling, prior.spec, self.device)
        self.choose_code = CodeChooser(prior.content_head, prior.spec.codebook_size, self.guidance, self.choose)

    def caches(self, rows: int) -> tuple[KeyValueCache, KeyValueCache]:
        """Those of the Position- and the Content-Transformer."""
        stacks = self.prior.position_transformer, self.prior.content_transformer
        return stacks[0].cache(rows, self.longest), stacks[1].cache(rows, self.longest)

    def start(self, images: int) -> RasterScanState:
        """Images without a code."""
        zeros = torch.zeros(images, dtype=torch.long, device=self.device)
        return RasterScanState(
            content=zeros.new_zeros(images, *self.prior.spec.id_shape),
            region=zeros + self.layout.regions,
            inside=zeros + self.layout.insides,
            left=zeros,
            counts=zeros.new_zeros(images, self.prior.spec.granularities),
            laid=self.layout.empty(images, self.layout.count + 1),
        )

    def finished(self, state: RasterScanState) -> Bool[Tensor, " b"]:
        """Which images have all codes of all regions."""
        return (state.counts.sum(1) == self.layout.regions) & (state.left == 0)

    def codes(self, state: RasterScanState) -> Codes:
        """The codes of finished images."""
        return self.layout.collect(state.laid[:, :-1])

    def step(self, state: RasterScanState, inputs: StepInputs) -> RasterScanState:
        """Every image reads its last code, or its start, and draws the next."""
        prior, rows, spec = self.prior, self.guidance.rows, self.prior.spec
        done = self.finished(state)
        starts = for_each_id(spec.content_start + inputs.labels, spec)
        content = torch.where(for_each_id(rows(state.region) == self.layout.regions, spec), starts, rows(state.content))
        embedded = prior.embed(content, rows(state.region), rows(state.inside), inputs.cursors.steps)
        if prior.condition_reader is not None:
            embedded = prior.condition_reader.told_each(embedded, inputs.conditions)
        hidden = prior.position_transformer.step(embedded, inputs.caches[0], inputs.cursors)

        logits = self.guidance.logits(prior.position_head(hidden))
        opens = (state.left == 0) & ~done
        # within a region the draw is not used: any will do
        allowed = self.plan.choices(state.counts) | ~opens[:, None]
        logits = logits.masked_fill(~allowed, -torch.inf)
        granularity = self.choose(draw_position, logits, inputs.noise[:, 0], opens)
        region = torch.where(opens, state.counts.sum(1), state.region).clamp(max=self.layout.regions - 1)
        if self.keeping is not None:
            granularity = self.keeping.granularity(region, granularity)
        inside = torch.where(opens, self.layout.inside_offsets[granularity], state.inside + 1)
        inside = inside.clamp(max=self.layout.insides - 1)

        hidden = hidden + prior.embed_position(rows(region), rows(inside))
        hidden = prior.content_transformer.step(hidden, inputs.caches[1], inputs.cursors)
        content = self.choose_code(hidden, inputs.noise[:, 1:], ~done)
        place = torch.where(done, self.layout.count, self.layout.of_region[region, inside])
        if self.keeping is not None:
            content = self.keeping.content(place, content)
        return RasterScanState(
            content=content,
            region=region,
            inside=inside,
            left=(torch.where(opens, self.plan.costs[granularity], state.left) - 1).clamp(min=0),
            counts=state.counts.scatter_add(1, granularity[:, None], opens[:, None].long()),
            laid=state.laid.scatter(1, for_each_id(place[:, None], spec), content[:, None]),
        )
