"""The prior of VQGAN (Esser, Rombach and Ommer, 2021): a GPT over codes of one granularity, row by row.

```
⟨sos⟩ C₀ C₁ … ─ embedding ─┐
steps 0  1  2 … ─ embedding ─(+)─ Transformer ─ head ─► C₀ C₁ C₂ …
```
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import SamplingOptions
from vltok.drawing.sampling import Guidance, draw_content
from vltok.errors import UserError
from vltok.interfaces import Choose, Codable, Ordered, Prior, PriorLoss
from vltok.nn.heads import Head
from vltok.nn.sequence_model import KeyValueCache, SequenceModel
from vltok.nn.transformer import Transformer, initialise
from vltok.priors.choosing import Chooser, Drawn, Told, walked
from vltok.priors.layout import FREE
from vltok.priors.losses import nats_per_code
from vltok.priors.orderings import RasterOrder, preceding
from vltok.priors.parts import links_between, moved_to
from vltok.priors.stepwise import StepInputs, Steps, StepwiseDrawing, in_precision


class FixedRaster(Prior, Ordered, Codable):
    """The fixed-length baseline: an autoregressive transformer over a VQGAN's codes.

    A recipe that leaves out the transformer gets as many parameters as the base DQ-Transformer, within 1%.

    Args:
        spec: The codes that it models, of one factor, on a grid of regions that is known.
        transformer: Walks over the codes.
        dropout: Dropout of embeddings; a recipe's transformer has the same unless it says otherwise.
        classes: Number of classes; None for an unconditional model.
        label_dropout: Probability with which training hides an image's class. Above 0 the model also learns the
            unconditional distribution, which classifier-free guidance needs.

    Raises:
        UserError: Codes of several factors or on no grid, or label dropout without classes.
    """

    links = links_between(transformer=24)
    former_arguments = moved_to(transformer="layers")

    def __init__(
        self,
        spec: CodeSpec,
        transformer: Transformer | SequenceModel,
        dropout: float = 0.1,
        classes: int | None = None,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if spec.granularities > 1:
            raise UserError(
                f"fixed-raster models codes of one factor, not of {list(spec.factors)}: use raster-scan, global-local "
                "or dq-transformer for several"
            )
        self.spec = spec
        self.ordering = RasterOrder(spec)
        self.conditioning = Conditioning(classes, label_dropout)
        self.dropout = dropout
        self.content_embedding = nn.Embedding(spec.content_start + self.conditioning.starts, transformer.width)
        self.step_embedding = nn.Embedding(spec.longest_length, transformer.width)
        self.transformer = transformer
        self.content_head = Head(transformer.width, spec.codebook_size, transformer.head_norm)
        initialise(self)

    def forward(self, codes: Codes) -> tuple[Float[Tensor, "t v"], Int[Tensor, " t"]]:
        """Logits of every code from those before it, and the codes themselves."""
        hidden, contents = self._hidden(codes)
        return self.content_head(hidden), contents

    def _hidden(self, codes: Codes) -> tuple[Float[Tensor, "t d"], Int[Tensor, " t"]]:
        """What the head reads, and the codes that it is to predict."""
        tokens = self.ordering(codes)
        starts = self.spec.content_start + self.conditioning.of_codes(codes, self.training)
        embedded = self.embed(preceding(tokens.contents, starts, tokens.packing), tokens.packing.steps)
        return self.transformer(F.dropout(embedded, self.dropout, self.training), tokens.packing), tokens.contents

    def loss(self, codes: Codes) -> PriorLoss:
        """The negative log-likelihood in nats a code."""
        hidden, contents = self._hidden(codes)
        nats = self.content_head.nats(hidden, contents).sum()
        return nats_per_code(codes, {"content": nats}, {"content": contents.numel()})

    def drawing_order(self, codes: Codes) -> Int[Tensor, " t"]:
        """When each code is drawn. See `Ordered.drawing_order`."""
        return self.ordering.steps(codes)

    def drawing(self, sampling: SamplingOptions) -> StepwiseDrawing:
        """Draws code by code."""
        return StepwiseDrawing(FixedRasterSteps(in_precision(self, sampling.precision), sampling))

    def choices(self, codes: Codes) -> list[int]:
        """The choices that make an image. See `Codable.choices`."""
        return self.ordering(codes).contents.tolist()

    def walk(self, choose: Choose) -> tuple[Codes, Bool[Tensor, "h w"]]:
        """The image that is chosen. See `Codable.walk`."""
        return walked(FixedRasterSteps(self, self.sampling(), Told(choose)), self.ordering.layout)

    def embed(self, contents: Int[Tensor, " n"], steps: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """What the transformer reads."""
        return self.content_embedding(contents) + self.step_embedding(steps)


@dataclass(frozen=True, eq=False)
class FixedRasterState:
    """Images under way.

    Attributes:
        laid: The codes drawn, row by row, `FREE` beyond them; the last column is for what follows the last of them,
            `[b p+1]`.
        drawn: How many there are, `[b]`.
    """

    laid: Int[Tensor, "b _"]
    drawn: Int[Tensor, " b"]


class FixedRasterSteps(Steps[FixedRasterState]):
    """The step that draws one code of each image.

    Args:
        prior: The model.
        sampling: How codes are drawn.
        choose: Who chooses them; chance by default.
    """

    prior: FixedRaster

    def __init__(self, prior: FixedRaster, sampling: SamplingOptions, choose: Chooser | None = None) -> None:
        self.prior = prior
        self.choose = choose or Drawn(sampling)
        self.layout = prior.ordering.layout
        self.guidance = Guidance(sampling.guidance)
        self.device = self.layout.region.device
        self.longest = prior.spec.longest_length
        self.draws = 1

    def caches(self, rows: int) -> tuple[KeyValueCache]:
        """That of the transformer."""
        return (self.prior.transformer.cache(rows, self.longest),)

    def start(self, images: int) -> FixedRasterState:
        """Images without a code."""
        drawn = torch.zeros(images, dtype=torch.long, device=self.device)
        return FixedRasterState(drawn.new_full((images, self.longest + 1), FREE), drawn)

    def finished(self, state: FixedRasterState) -> Bool[Tensor, " b"]:
        """Which images have all codes."""
        return state.drawn == self.longest

    def codes(self, state: FixedRasterState) -> Codes:
        """The codes of finished images."""
        return self.layout.collect(state.laid[:, :-1])

    def step(self, state: FixedRasterState, inputs: StepInputs) -> FixedRasterState:
        """Every image reads its last code, or its start, and draws the next."""
        prior, last = self.prior, self.guidance.rows(state.drawn) - 1
        content = self.guidance.rows(state.laid).gather(1, last.clamp(min=0)[:, None])[:, 0]
        content = torch.where(last < 0, prior.spec.content_start + inputs.labels, content)
        hidden = prior.transformer.step(prior.embed(content, inputs.cursors.steps), inputs.caches[0], inputs.cursors)
        logits = self.guidance.logits(prior.content_head(hidden))
        content = self.choose(draw_content, logits, inputs.noise[:, 0], state.drawn < self.longest)
        return replace(
            state,
            laid=state.laid.scatter(1, state.drawn[:, None], content[:, None]),
            drawn=(state.drawn + 1).clamp(max=self.longest),
        )
