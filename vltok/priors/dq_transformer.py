"""DQ-Transformer (section 3.3): where the next code goes, then what it is, from coarse to fine.

```
contents  C₀ C₁ C₂ … ─ embedding ──┐
positions P₀ P₁ P₂ … ─ embedding ──┤
granularities        ─ embedding ─(+)─ Position-Transformer ─ H ─┬─ head ─► P₁ P₂ P₃ …   eq. (9)
steps     0  1  2  … ─ embedding ──┘                             │
positions P₁ P₂ P₃ … ─ embedding ───────────────────────────────(+)─ Content-Transformer ─ head ─► C₁ C₂ C₃ …   eq. (10)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.code_maps import for_each_id
from vltok.codes import Codes, CodeSpec
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import SamplingConfig
from vltok.interfaces import AnyGrid, Choose, Codable, Inpaints, Kept, Ordered, Prior, PriorLoss, TextEncoder
from vltok.nn.code_heads import CodeHead, embed_codes
from vltok.nn.places import STEP_FEATURES, PlaceHead, PlaceTable, PositionHead
from vltok.nn.sequence_model import SequenceModel
from vltok.nn.transformer import Transformer, initialise
from vltok.priors.choosing import Told, walked
from vltok.priors.condition_reader import ConditionReader
from vltok.priors.dq_steps import CoarseToFineSteps
from vltok.priors.grids import Grids, on_their_grid, only_grid, placed
from vltok.priors.keeping import Keeping
from vltok.priors.orderings import CoarseToFine, Sequences
from vltok.priors.parts import common_width, links_between, moved_to
from vltok.priors.stepwise import StepwiseDrawing, in_precision
from vltok.processes import mean_over_processes


@dataclass(frozen=True, eq=False)
class Predictions:
    """What DQ-Transformer predicts, and what was to be predicted.

    Attributes:
        positions: Logits of the next position, `[t v]`, in the id space of the next token's granularity.
        contents: Logits of the next content, given the next position, `[t v]`; of each of several ids, `[t q v]`.
        targets: The next tokens.
    """

    positions: Float[Tensor, "t _"]
    contents: Float[Tensor, "t *q _"]
    targets: Sequences


class DQTransformer(Prior, AnyGrid, Ordered, Codable, Inpaints):
    """The paper's prior over codes of several granularities.

    A recipe that leaves out the transformers gets the paper's base model, 308M parameters; 42 layers of the
    Content-Transformer give the large one. With one factor it is an ordinary autoregressive transformer over a VQGAN's
    codes.

    Args:
        spec: The codes that it models, on a grid. Where that is known, positions and steps have learned embeddings, as
            in the paper; where `spec.regions` is None, images have any grid, and these are made of rows and columns.
        position_transformer: Gives what the next position depends on.
        content_transformer: Gives what the next content depends on.
        dropout: Dropout of embeddings; a recipe's transformers have the same unless it says otherwise.
        classes: Number of classes; None for an unconditional model.
        label_dropout: Probability with which training hides an image's class, text or embedding. Above 0 the model also
            learns the unconditional distribution, which classifier-free guidance needs.
        class_in_positions: The class stands for ⟨sos⟩ in the position tracks too, as in the original's code; else in
            the content track only, as the paper has it.
        order: Order of the codes of one granularity: ``row-first`` or ``region-first``.
        shared_content: One content embedding for all granularities, or one for each (table 7).
        shared_position: One position embedding for all granularities, or one for each (table 7).
        granularity_embedding: Whether tokens say of which granularity they are (table 7).
        absolute_position: Whether tokens say at which step of the sequence they stand.
        position_loss: ``sequence`` is one mean over all positions (eq. 9), ``granularity-mean`` the mean of each
            granularity's mean, as in the original's code.
        text_encoder: Reads the texts that describe images, on which they then depend; None reads none.
        embedding_size: How many numbers the embeddings of images have, on which these then depend; None reads none.

    Raises:
        UserError: Codes on no grid, transformers of two widths, or label dropout without classes.
    """

    sampling = SamplingConfig
    links = links_between(position_transformer=6, content_transformer=18)
    former_arguments = moved_to(position_transformer="position_layers", content_transformer="content_layers")

    grids: Grids[CoarseToFine]
    ordering: CoarseToFine
    position_embedding: nn.Module
    step_embedding: nn.Module | None
    position_head: Any  # of any grid, what makes one
    content_offsets: Tensor
    position_offsets: Tensor

    def __init__(
        self,
        spec: CodeSpec,
        position_transformer: Transformer | SequenceModel,
        content_transformer: Transformer | SequenceModel,
        dropout: float = 0.1,
        classes: int | None = None,
        label_dropout: float = 0.0,
        class_in_positions: bool = False,
        order: Literal["row-first", "region-first"] = "row-first",
        shared_content: bool = True,
        shared_position: bool = False,
        granularity_embedding: bool = True,
        absolute_position: bool = True,
        position_loss: Literal["sequence", "granularity-mean"] = "sequence",
        text_encoder: TextEncoder | None = None,
        embedding_size: int | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        width = common_width(position_transformer=position_transformer, content_transformer=content_transformer)
        if spec.any_grid:
            self.grids = Grids(spec, partial(CoarseToFine, order=order))
        else:
            self.ordering = CoarseToFine(spec, order)
        condition_reader = ConditionReader.of(text_encoder, embedding_size, width)
        self.conditioning = Conditioning(classes, label_dropout, condition_reader)
        self.class_in_positions = class_in_positions
        self.position_loss = position_loss
        self.dropout = dropout
        starts = self.conditioning.starts
        granularities = spec.granularities
        content_size = spec.content_start + starts
        position_starts = starts if class_in_positions else 1
        # Tables of several granularities stand in one matrix, one after another: granularity k's starts at offset k.
        content_tables = 1 if shared_content else granularities
        self.content_embedding = nn.Embedding(spec.codebooks * content_tables * content_size, width)
        content_offsets = torch.arange(granularities) * (0 if shared_content else content_size)
        self.register_buffer("content_offsets", content_offsets, persistent=False)
        offsets = torch.zeros(granularities, dtype=torch.long)
        norm = position_transformer.head_norm
        if spec.any_grid:
            special = 2 + position_starts  # ⟨pad⟩, ⟨eos⟩ and what stands for ⟨sos⟩
            self.position_embedding = PlaceTable(width, kinds=1 if shared_position else granularities, others=special)
        else:
            sizes = [spec.position_start(granularity) + position_starts for granularity in range(granularities)]
            self.position_embedding = nn.Embedding(sizes[-1] if shared_position else sum(sizes), width)
            if not shared_position:
                offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("position_offsets", offsets, persistent=False)
        self.granularity_embedding = nn.Embedding(granularities, width) if granularity_embedding else None
        self.step_embedding = None
        if absolute_position and spec.any_grid:
            self.step_embedding = PlaceTable(width, STEP_FEATURES)
        elif absolute_position:
            self.step_embedding = nn.Embedding(self.ordering.longest, width)
        self.position_transformer = position_transformer
        self.content_transformer = content_transformer
        self.position_head = (
            PlaceHead(width, granularities, special, norm) if spec.any_grid else PositionHead(width, sizes[-1], norm)
        )
        self.content_head = CodeHead(width, content_size, content_transformer.head_norm, spec.codebooks)
        initialise(self)
        self.condition_reader = condition_reader

    def forward(self, sequences: Sequences, conditions: Float[Tensor, "b m _"] | None = None) -> Predictions:
        """Predict every token but the first of each image from those before it, and from its condition."""
        positions, contents, targets = self._hidden(sequences, conditions)
        logits = self.content_head.code_logits(contents, targets.contents)
        return Predictions(self.position_head.position_logits(positions, targets.granularities), logits, targets)

    def _hidden(
        self, sequences: Sequences, conditions: Float[Tensor, "b m _"] | None
    ) -> tuple[Float[Tensor, "t d"], Float[Tensor, "t d"], Sequences]:
        """What the heads of positions and contents read, and what is to be predicted."""
        read, targets = sequences.shifted()
        embedded = self.embed(read.contents, read.positions, read.granularities, read.packing.steps)
        if self.condition_reader is not None and conditions is not None:
            embedded = self.condition_reader.told(embedded, conditions, read.packing)
        positions = self.position_transformer(F.dropout(embedded, self.dropout, self.training), read.packing)
        embedded = positions + self.embed_position(targets.positions, targets.granularities)
        return positions, self.content_transformer(embedded, read.packing), targets

    def on_grid(self, grid: tuple[int, int]) -> DQTransformer:
        """The prior of the images of one grid. See `AnyGrid.on_grid`."""
        if not self.spec.any_grid:
            return only_grid(self, grid)
        on = self.grids(grid, self.content_offsets.device)
        special = self.conditioning.starts if self.class_in_positions else 1
        sizes, most = on.starts + special, on.spec.position_start(self.spec.granularities - 1) + special
        tables = {
            "ordering": on.ordering,
            "position_embedding": self.position_embedding(on.maps),
            "position_head": self.position_head(on.maps, sizes, most),
        }
        if self.step_embedding is not None:
            tables["step_embedding"] = self.step_embedding([on.steps])
        prior = placed(self, on.spec, **tables)
        prior.position_offsets = sizes.cumsum(0) - sizes
        return prior

    @on_their_grid
    def loss(self, codes: Codes) -> PriorLoss:
        """Eq. (11): the position loss (eq. 9) plus the content loss (eq. 10), in nats a token."""
        labels = self.conditioning.of_codes(codes, self.training)
        conditions = None if self.condition_reader is None else self.condition_reader.of_codes(codes, labels)
        *hidden, targets = self._hidden(self.ordering(codes, *self.starts(labels)), conditions)
        positions = self.position_head.position_nats(hidden[0], targets.positions, targets.granularities)
        content = self.content_head.code_nats(hidden[1], targets.contents).mean()
        position = positions.mean()
        count = torch.full((), targets.packing.total, device=codes.device)
        weighted = position
        if self.position_loss == "granularity-mean":
            tokens = F.one_hot(targets.granularities, self.spec.granularities).sum(0).to(positions.dtype)
            tokens = mean_over_processes(tokens) if self.training else tokens
            # every granularity weighs the same, every token of it in all batches of a step too
            weights = tokens.sum() / (tokens * self.spec.granularities)
            weighted = (positions * weights[targets.granularities]).mean()
        return PriorLoss(
            total=weighted + content,
            parts={"position": position.detach(), "content": content.detach()},
            counts={"position": count, "content": count},
            weight=count,
        )

    @on_their_grid
    def drawing_order(self, codes: Codes) -> Int[Tensor, " t"]:
        """When each code is drawn. See `Ordered.drawing_order`."""
        return self.ordering.steps(codes)

    def drawing(self, sampling: SamplingConfig) -> StepwiseDrawing:
        """Draws token by token (algorithm 1). Every draw decodes: each region is covered exactly once.

        Raises:
            UserError: A length that no image can have.
        """
        return StepwiseDrawing(CoarseToFineSteps(in_precision(self, sampling.precision), sampling))

    def inpainting(self, sampling: SamplingConfig, kept: Kept) -> StepwiseDrawing:
        """Draws as ever, but regions that are kept have their own granularity, and what is kept is written in place of
        what was drawn there. See `Inpaints.inpainting`."""
        prior, keeping = in_precision(self, sampling.precision), Keeping(kept, self.spec)
        return StepwiseDrawing(CoarseToFineSteps(prior, sampling, keeping=keeping))

    @on_their_grid
    def choices(self, codes: Codes) -> list[int]:
        """The choices that make an image. See `Codable.choices`."""
        return self.ordering.choices(codes)

    def walk(self, choose: Choose) -> tuple[Codes, Bool[Tensor, "h w"]]:
        """The image that is chosen. See `Codable.walk`."""
        return walked(CoarseToFineSteps(self, SamplingConfig(positions="implied"), Told(choose)), self.ordering.layout)

    def embed(
        self,
        contents: Int[Tensor, " n *q"],
        positions: Int[Tensor, " n"],
        granularities: Int[Tensor, " n"],
        steps: Int[Tensor, " n"],
    ) -> Float[Tensor, "n d"]:
        """What the Position-Transformer reads."""
        offsets = for_each_id(self.content_offsets[granularities], self.spec)
        embedded = embed_codes(self.content_embedding, offsets + contents)
        embedded = embedded + self.embed_position(positions, granularities)
        if self.step_embedding is not None:
            embedded = embedded + self.step_embedding(steps)
        if self.granularity_embedding is not None:
            embedded = embedded + self.granularity_embedding(granularities)
        return embedded

    def embed_position(self, positions: Int[Tensor, " n"], granularities: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The embedding of positions, which both transformers read."""
        return self.position_embedding(self.position_offsets[granularities] + positions)

    def starts(self, labels: Int[Tensor, " b"]) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
        """What stands for ⟨sos⟩ in the content track, and what is added to it in the position tracks.

        Args:
            labels: The class of each image; the number of classes, 0 if there are none, for images without one.
        """
        return self.spec.content_start + labels, labels * int(self.class_in_positions)
