"""How likely a grain map is: the granularity of one region after the other, in raster order.

Axis letters: b image, h w grid of regions, r region (packed over the batch), n row (an image, or with guidance an image
with its class and one without), d model width, k granularity.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.codes import CodeSpec
from vltok.drawing.batches import WantedImages
from vltok.drawing.config import VariableLengthSampling
from vltok.drawing.keeping import Kept
from vltok.drawing.sampling import Guidance, draw_position
from vltok.nn.attention import Packing
from vltok.nn.heads import Head
from vltok.nn.places import PlaceTable
from vltok.nn.sequence_model import Cursors, SequenceModel
from vltok.priors.condition_reader import ConditionReader
from vltok.priors.grids import placed
from vltok.priors.lengths import RasterPlan


class GrainModel(nn.Module):
    """A causal transformer over the granularities of regions.

    ```
    ⟨class⟩ g₀ g₁ … ─ embedding ─┐
    regions 0  1  2 … ─ embedding ─(+)─ transformer ─ head ─► g₀ g₁ g₂ …
    ```

    Args:
        spec: The codes whose grain maps it models.
        transformer: Walks over regions.
        dropout: Dropout of embeddings.
        starts: How many kinds of images there are: classes, and those without.
    """

    def __init__(self, spec: CodeSpec, transformer: SequenceModel, dropout: float, starts: int) -> None:
        super().__init__()
        self.spec = spec
        self.regions = 0 if spec.any_grid else math.prod(spec.grid)
        self.dropout = dropout
        # granularities, then starts
        self.grain_embedding = nn.Embedding(spec.granularities + starts, transformer.width)
        self.region_embedding: nn.Module = (
            PlaceTable(transformer.width) if spec.any_grid else nn.Embedding(self.regions, transformer.width)
        )
        self.transformer = transformer
        self.head = Head(transformer.width, spec.granularities, transformer.head_norm)

    def on_grid(self, spec: CodeSpec, regions: Float[Tensor, "_ f"]) -> GrainModel:
        """The same model of the grain maps of one grid.

        Args:
            spec: The codes on it.
            regions: What tells its regions; see `vltok.nn.places.place_features`.
        """
        model = placed(self, spec, region_embedding=self.region_embedding([regions]))
        model.regions = math.prod(spec.grid)
        return model

    def nats(
        self,
        grains: Int[Tensor, "b h w"],
        labels: Int[Tensor, " b"],
        reader: ConditionReader | None,
        conditions: Float[Tensor, "b ..."] | None,
    ) -> Float[Tensor, " r"]:
        """What each region's granularity costs.

        Args:
            grains: The grain maps.
            labels: The class of each image.
            reader: Tells regions what it has read.
            conditions: What it has read of each image.
        """
        granularities = grains.flatten(1).long()
        before = torch.cat([self.spec.granularities + labels[:, None], granularities[:, :-1]], 1).flatten()
        packing = Packing(torch.full_like(labels, self.regions), [self.regions] * len(labels))
        embedded = self._embed(before, packing.steps)
        if reader is not None:
            embedded = reader.told(embedded, conditions, packing)
        embedded = F.dropout(embedded, self.dropout, self.training)
        return self.head.nats(self.transformer(embedded, packing), granularities.flatten())

    def draw(
        self,
        images: WantedImages,
        labels: Int[Tensor, " n"],
        reader: ConditionReader | None,
        sampling: VariableLengthSampling,
        guidance: Guidance,
        plan: RasterPlan,
        kept: Kept | None,
    ) -> Int[Tensor, "b h w"]:
        """Grain maps of images.

        Args:
            images: Which; their streams' first numbers are used, one for each region.
            labels: The class of each row.
            reader: Tells regions what it has read.
            sampling: How granularities are drawn.
            guidance: How rows make images.
            plan: Which granularities leave a length within reach.
            kept: Regions whose granularity stays.
        """
        device, noise = labels.device, images.uniforms(self.regions)
        known = None if kept is None else kept.granularities
        cache = self.transformer.cache(len(labels), self.regions)
        drawn = torch.zeros(len(images), self.regions, dtype=torch.long, device=device)
        counts = drawn.new_zeros(len(images), self.spec.granularities)
        read = self.spec.granularities + labels
        for region in range(self.regions):
            cursors = Cursors.at(torch.full_like(labels, region), region, self.regions)
            embedded = self._embed(read, cursors.steps)
            if reader is not None:
                embedded = reader.told_each(embedded, images.conditions)
            hidden = self.transformer.step(embedded, cache, cursors)
            logits = guidance.logits(self.head(hidden)).masked_fill(~plan.choices(counts), -torch.inf)
            granularity = draw_position(logits, sampling, noise[:, region])
            if known is not None:
                granularity = granularity.where(known[region] < 0, known[region])
            drawn[:, region] = granularity
            counts = counts.scatter_add(1, granularity[:, None], torch.ones_like(granularity)[:, None])
            read = guidance.rows(granularity)
        return drawn.unflatten(1, self.spec.grid)

    def _embed(self, granularities: Int[Tensor, " r"], regions: Int[Tensor, " r"]) -> Float[Tensor, "r d"]:
        return self.grain_embedding(granularities) + self.region_embedding(regions)
