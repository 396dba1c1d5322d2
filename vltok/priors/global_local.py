"""The global-local design of supplementary 3.2, after RQ-Transformer (Lee et al., 2022): regions, then their codes.

```
⟨sos⟩ Σ₀ Σ₁ … ─ Global-Transformer ─► H₀ H₁ H₂ …       Σᵣ: the sum of region r's embedded codes and granularity
                                      │
            Hᵣ  granularity  C₀ C₁ … ─ Local-Transformer ─► granularity  C₀ C₁ C₂ …       of region r alone
```

The Global-Transformer walks over regions in raster order, and its state is all that the Local-Transformer knows of
other regions.

Axis letters: b image, r region (packed over the batch), t code (packed, in raster order of regions), l token of the
Local-Transformer (packed: of each region its state, its granularity, and all codes but the last), d model width,
k granularity, v vocabulary, q id of a code (no axis where there is one codebook).
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
from vltok.nn.attention import Packing
from vltok.nn.code_heads import CodeHead, embed_codes
from vltok.nn.heads import Head
from vltok.nn.places import PlaceTable
from vltok.nn.sequence_model import Cursors, KeyValueCache, SequenceModel
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
    """What the global-local prior predicts, and what was to be predicted.

    Attributes:
        granularities: Logits of each region's granularity, `[r k]`.
        contents: Logits of each code, given its region's granularity, `[t v]`; of each of several ids, `[t q v]`.
        tokens: The codes.
    """

    granularities: Float[Tensor, "r k"]
    contents: Float[Tensor, "t *q v"]
    tokens: RasterSequences


class GlobalLocal(Prior, AnyGrid, Ordered, Codable, Inpaints):
    """A prior over codes of several granularities that models regions globally and their codes locally.

    A recipe that leaves out the transformers gets as many parameters as the base DQ-Transformer, within 2%.

    Args:
        spec: The codes that it models, on a grid. Where that is known, regions have learned embeddings; where
            `spec.regions` is None, images have any grid, and embeddings are made of rows and columns.
        global_transformer: Walks over regions.
        local_transformer: Walks over the codes of one region.
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
    links = links_between(global_transformer=18, local_transformer=6)
    former_arguments = moved_to(global_transformer="global_layers", local_transformer="local_layers")

    grids: Grids[RasterOrder]
    ordering: RasterOrder
    step_embedding: nn.Module

    def __init__(
        self,
        spec: CodeSpec,
        global_transformer: Transformer | SequenceModel,
        local_transformer: Transformer | SequenceModel,
        dropout: float = 0.1,
        classes: int | None = None,
        label_dropout: float = 0.0,
        text_encoder: TextEncoder | None = None,
        embedding_size: int | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        width = common_width(global_transformer=global_transformer, local_transformer=local_transformer)
        if spec.any_grid:
            self.grids = Grids(spec, RasterOrder)
        else:
            self.ordering = RasterOrder(spec)
        condition_reader = ConditionReader.of(text_encoder, embedding_size, width)
        self.conditioning = Conditioning(classes, label_dropout, condition_reader)
        self.dropout = dropout
        granularities = spec.granularities
        # codes as parts of a region's sum, and as tokens of their own
        self.region_content_embedding = nn.Embedding(
            spec.codebooks * (spec.content_start + self.conditioning.starts), width
        )
        self.region_granularity_embedding = nn.Embedding(granularities, width)
        self.step_embedding = PlaceTable(width) if spec.any_grid else nn.Embedding(self.ordering.layout.regions, width)
        self.content_embedding = nn.Embedding(spec.entries, width)
        self.granularity_embedding = nn.Embedding(granularities, width)
        self.inside_embedding = nn.Embedding(sum(spec.codes_per_region), width)
        self.global_transformer = global_transformer
        self.local_transformer = local_transformer
        self.granularity_head = Head(width, granularities, global_transformer.head_norm)
        self.content_head = CodeHead(width, spec.codebook_size, local_transformer.head_norm, spec.codebooks)
        initialise(self)
        self.condition_reader = condition_reader

    @on_their_grid
    def forward(self, codes: Codes) -> Predictions:
        """Predict each region from those before it, and within it its granularity and its codes in inputs."""
        granularities, contents, tokens = self._hidden(codes)
        logits = self.content_head.code_logits(contents, tokens.contents)
        return Predictions(self.granularity_head(granularities), logits, tokens)

    def _hidden(self, codes: Codes) -> tuple[Float[Tensor, "r d"], Float[Tensor, "t d"], RasterSequences]:
        """What the heads of granularities and contents read, and the codes."""
        tokens, layout = self.ordering(codes), self.ordering.layout
        granularities = codes.require_grains().flatten().long()
        region = tokens.packing.images * layout.regions + layout.region[tokens.places]
        states = self._states(codes, tokens, region)
        # of region r, whose first code is code t: tokens t + r … t + r + its number of codes
        packing = Packing(1 + layout.costs[granularities], self._local_lengths(codes))
        embedded = torch.cat(
            [self.granularity_embedding(granularities), self.embed(tokens.contents, layout.inside[tokens.places])]
        )
        sources = torch.cat([states, F.dropout(embedded, self.dropout, self.training)])
        source = torch.where(packing.steps == 0, packing.images, len(states) + packing.images)
        code = torch.arange(packing.total, device=codes.device) - packing.images - 1
        source = torch.where(packing.steps > 1, 2 * len(states) + code - 1, source)
        hidden = self.local_transformer(sources[source], packing)
        contents = hidden[torch.arange(len(region), device=codes.device) + region + 1]
        return hidden[packing.cu_seqlens[:-1].long()], contents, tokens

    def on_grid(self, grid: tuple[int, int]) -> GlobalLocal:
        """The prior of the images of one grid. See `AnyGrid.on_grid`."""
        if not self.spec.any_grid:
            return only_grid(self, grid)
        on = self.grids(grid, self.content_embedding.weight.device)
        return placed(
            self,
            on.spec,
            ordering=on.ordering,
            step_embedding=self.step_embedding(on.maps[:1]),
        )

    @on_their_grid
    def loss(self, codes: Codes) -> PriorLoss:
        """The negative log-likelihood in nats a code."""
        regions, contents, tokens = self._hidden(codes)
        granularities = codes.require_grains().flatten().long()
        return nats_per_code(
            codes,
            {
                "granularity": self.granularity_head.nats(regions, granularities).sum(),
                "content": self.content_head.code_nats(contents, tokens.contents).sum(),
            },
            {"granularity": granularities.numel(), "content": tokens.packing.total},
        )

    @on_their_grid
    def drawing_order(self, codes: Codes) -> Int[Tensor, " t"]:
        """When each code is drawn. See `Ordered.drawing_order`."""
        return self.ordering.steps(codes)

    def drawing(self, sampling: VariableLengthSampling) -> StepwiseDrawing:
        """Draws region by region. Every draw decodes: each region has one granularity and all codes of it.

        The temperature, top-k and top-p of positions are those of granularities.

        Raises:
            UserError: A length that no image can have.
        """
        return StepwiseDrawing(GlobalLocalSteps(in_precision(self, sampling.precision), sampling))

    def inpainting(self, sampling: VariableLengthSampling, kept: Kept) -> StepwiseDrawing:
        """Draws as ever, and writes what is kept in place of what was drawn there. See `Inpaints.inpainting`."""
        prior, keeping = in_precision(self, sampling.precision), Keeping(kept, self.spec)
        return StepwiseDrawing(GlobalLocalSteps(prior, sampling, keeping=keeping))

    @on_their_grid
    def choices(self, codes: Codes) -> list[int]:
        """The choices that make an image. See `Codable.choices`."""
        return raster_choices(self.ordering, codes)

    def walk(self, choose: Choose) -> tuple[Codes, Bool[Tensor, "h w"]]:
        """The image that is chosen. See `Codable.walk`."""
        return walked(GlobalLocalSteps(self, self.sampling(), Told(choose)), self.ordering.layout)

    def embed(self, contents: Int[Tensor, " n *q"], insides: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The codes that the Local-Transformer reads."""
        return embed_codes(self.content_embedding, contents) + self.inside_embedding(insides)

    def embed_starts(self, labels: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """What the Global-Transformer reads before the first region."""
        return embed_codes(self.region_content_embedding, for_each_id(self.spec.content_start + labels, self.spec))

    def _local_lengths(self, codes: Codes) -> list[int]:
        """How many tokens the Local-Transformer reads of each region."""
        tokens = 1 + torch.tensor(self.spec.codes_per_region)
        return tokens[codes.on_host.require_grains().flatten().long()].tolist()

    def _states(self, codes: Codes, tokens: RasterSequences, region: Int[Tensor, " t"]) -> Float[Tensor, "r d"]:
        """What the Global-Transformer knows of each region before it is drawn."""
        grains = codes.require_grains().flatten(1).long()
        sums = self.region_granularity_embedding(grains.flatten())
        sums = sums.index_add(0, region, embed_codes(self.region_content_embedding, tokens.contents))
        packing = Packing(torch.full_like(grains[:, 0], grains.shape[1]), [grains.shape[1]] * len(grains))
        labels = self.conditioning.of_codes(codes, self.training)
        embedded = preceding(sums, self.embed_starts(labels), packing) + self.step_embedding(packing.steps)
        if self.condition_reader is not None:
            embedded = self.condition_reader.told(embedded, self.condition_reader.of_codes(codes, labels), packing)
        return self.global_transformer(F.dropout(embedded, self.dropout, self.training), packing)


@dataclass(frozen=True, eq=False)
class GlobalLocalState:
    """Images under way.

    Attributes:
        summed: The sum of the last region's embeddings, `[b d]`.
        counts: The regions of each granularity so far, `[b k]`.
        laid: The codes drawn, at their places; the last column is for what is none of them, `[b p+1]` or `[b p+1 q]`.
    """

    summed: Float[Tensor, "b d"]
    counts: Int[Tensor, "b k"]
    laid: Int[Tensor, "b _ *q"]


class GlobalLocalSteps(Steps[GlobalLocalState]):
    """The step that draws one region of each image: its granularity, then its codes.

    All images take as many local steps as a region of the finest granularity has codes. Those of coarser ones end
    sooner, which costs less than a step of the Global-Transformer for every code would.

    Args:
        prior: The model.
        sampling: How granularities and codes are drawn.
        choose: Who chooses them; chance by default.
        keeping: What is given of every image; None for nothing.

    Raises:
        UserError: A length that no image can have.
    """

    prior: GlobalLocal

    def __init__(
        self,
        prior: GlobalLocal,
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
        self.longest = self.layout.regions
        self.most_codes = prior.spec.codes_per_region[-1]
        self.local_steps = 1 + self.most_codes
        self.draws = 1 + self.most_codes * prior.spec.codebooks
        self.plan = RasterPlan.of(sampling, prior.spec, self.device)
        self.choose_code = CodeChooser(prior.content_head, prior.spec.codebook_size, self.guidance, self.choose)

    def caches(self, rows: int) -> tuple[KeyValueCache, KeyValueCache]:
        """That of the Global-Transformer, and that of the Local-Transformer, which starts anew in every region."""
        stacks = self.prior.global_transformer, self.prior.local_transformer
        return stacks[0].cache(rows, self.longest), stacks[1].cache(rows, self.local_steps)

    def start(self, images: int) -> GlobalLocalState:
        """Images without a region."""
        embedding = self.prior.region_content_embedding.weight
        counts = torch.zeros(images, self.prior.spec.granularities, dtype=torch.long, device=self.device)
        laid = self.layout.empty(images, self.layout.count + 1)
        return GlobalLocalState(embedding.new_zeros(images, embedding.shape[1]), counts, laid)

    def finished(self, state: GlobalLocalState) -> Bool[Tensor, " b"]:
        """Which images have all regions."""
        return state.counts.sum(1) == self.layout.regions

    def codes(self, state: GlobalLocalState) -> Codes:
        """The codes of finished images."""
        return self.layout.collect(state.laid[:, :-1])

    def step(self, state: GlobalLocalState, inputs: StepInputs) -> GlobalLocalState:
        """Every image reads its last region, or its start, and draws the next."""
        prior, rows = self.prior, self.guidance.rows
        done = self.finished(state)
        before = state.counts.sum(1)
        read = torch.where(rows(before)[:, None] == 0, prior.embed_starts(inputs.labels), rows(state.summed))
        embedded = read + prior.step_embedding(inputs.cursors.steps)
        if prior.condition_reader is not None:
            embedded = prior.condition_reader.told_each(embedded, inputs.conditions)
        hidden = prior.global_transformer.step(embedded, inputs.caches[0], inputs.cursors)

        hidden = self._local(hidden, 0, inputs)
        # of a finished image nothing is used: any will do
        allowed = self.plan.choices(state.counts) | done[:, None]
        logits = self.guidance.logits(prior.granularity_head(hidden)).masked_fill(~allowed, -torch.inf)
        granularity = self.choose(draw_position, logits, inputs.noise[:, 0], ~done)
        region = before.clamp(max=self.layout.regions - 1)
        if self.keeping is not None:
            granularity = self.keeping.granularity(region, granularity)
        first = self.layout.inside_offsets[granularity]
        codes = self.plan.costs[granularity].where(~done, 0)
        summed, laid = prior.region_granularity_embedding(granularity), state.laid
        read = prior.granularity_embedding(rows(granularity))
        noise = inputs.noise[:, 1:].split(prior.spec.codebooks, dim=1)
        for step in range(self.most_codes):
            hidden = self._local(read, 1 + step, inputs)
            belongs = step < codes
            content = self.choose_code(hidden, noise[step], belongs)
            inside = (first + step).clamp(max=self.layout.insides - 1)
            place = torch.where(belongs, self.layout.of_region[region, inside], self.layout.count)
            if self.keeping is not None:
                content = self.keeping.content(place, content)
            laid = laid.scatter(1, for_each_id(place[:, None], prior.spec), content[:, None])
            summed = summed + embed_codes(prior.region_content_embedding, content) * belongs[:, None]
            read = prior.embed(rows(content), rows(inside))
        counts = state.counts.scatter_add(1, granularity[:, None], (~done)[:, None].long())
        return GlobalLocalState(summed, counts, laid)

    def _local(self, read: Float[Tensor, "n d"], step: int, inputs: StepInputs) -> Float[Tensor, "n d"]:
        """A step of the Local-Transformer, the same one for all rows."""
        cursors = Cursors.at(torch.full_like(inputs.labels, step), step, self.local_steps)
        return self.prior.local_transformer.step(read, inputs.caches[1], cursors)
