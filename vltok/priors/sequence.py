"""A GPT over one sequence of codes: those of one granularity row by row, or those that lie on no grid.

```
⟨sos⟩ C₀ C₁ … ─ embedding ─┐
steps 0  1  2 … ─ embedding ─(+)─ Transformer ─ head ─► C₀ C₁ C₂ …
length n n n  … ─ embedding ─┘
⟨sos⟩ ─ embedding ─ head ─► n
```

On a grid it is the prior of VQGAN (Esser, Rombach and Ommer, 2021): every image has a code a region, and there is no
length to tell. Elsewhere the length comes first, so that p(image) = p(n) Π p(Cᵢ | n, C₀ … Cᵢ₋₁): no end needs to be
drawn, and a length that is asked for is met by telling it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.code_maps import for_each_id, require_ids
from vltok.codes import Codes, CodeSpec
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import SamplingOptions, VariableLengthSampling, options_for
from vltok.drawing.sampling import Guidance, draw_position
from vltok.errors import UserError
from vltok.interfaces import AnyGrid, Choose, Codable, Inpaints, Kept, Ordered, Prior, PriorLoss, TextEncoder
from vltok.nn.attention import Packing
from vltok.nn.code_heads import CodeHead, embed_codes
from vltok.nn.heads import Head
from vltok.nn.places import PlaceTable
from vltok.nn.sequence_model import KeyValueCache, SequenceModel
from vltok.nn.transformer import Transformer, initialise
from vltok.priors.choosing import Chooser, CodeChooser, Drawn, Told, answered
from vltok.priors.condition_reader import ConditionReader
from vltok.priors.grids import Grids, on_their_grid, only_grid, placed
from vltok.priors.keeping import Keeping
from vltok.priors.layout import Layout, require_grid
from vltok.priors.lengths import sequence_lengths
from vltok.priors.losses import nats_per_code
from vltok.priors.orderings import preceding
from vltok.priors.parts import links_between, moved_to
from vltok.priors.stepwise import StepInputs, Steps, StepwiseDrawing, in_precision


class SequencePrior(Prior, AnyGrid, Ordered, Codable, Inpaints):
    """An autoregressive transformer over one sequence of codes: a VQGAN's, or those of a tokenizer without a grid.

    A recipe that leaves out the transformer gets as many parameters as the base DQ-Transformer, within 1%. It is
    registered as `sequence`, and as `fixed-raster`, its name of before.

    Args:
        spec: The codes that it models: of one factor, on a grid, or on no grid, of a longest length that is known.
            Steps have learned embeddings; where codes lie on a grid and `spec.regions` is None, images have any grid,
            and embeddings are made of rows and columns.
        transformer: Walks over the codes.
        dropout: Dropout of embeddings; a recipe's transformer has the same unless it says otherwise.
        classes: Number of classes; None for an unconditional model.
        label_dropout: Probability with which training hides an image's class, text or embedding. Above 0 the model also
            learns the unconditional distribution, which classifier-free guidance needs.
        text_encoder: Reads the texts that describe images, on which they then depend; None reads none.
        embedding_size: How many numbers the embeddings of images have, on which these then depend; None reads none.

    Raises:
        UserError: Codes of several factors or of an unknown longest length, label dropout without classes, or a
            transformer for another grid.
    """

    sampling = VariableLengthSampling
    links = links_between(transformer=24)
    former_arguments = moved_to(transformer="layers")

    grids: Grids[Layout]
    step_embedding: nn.Module

    def __init__(
        self,
        spec: CodeSpec,
        transformer: Transformer | SequenceModel,
        dropout: float = 0.1,
        classes: int | None = None,
        label_dropout: float = 0.0,
        text_encoder: TextEncoder | None = None,
        embedding_size: int | None = None,
    ) -> None:
        super().__init__()
        if spec.granularities > 1:
            raise UserError(
                f"a sequence has codes of one factor or of none, not of {list(spec.factors)}: use raster-scan, "
                "global-local or dq-transformer for several"
            )
        columns = spec.grid[1] if spec.gridded and not spec.any_grid else None
        if transformer.columns not in (None, columns):
            allowed = "left out, since they have any grid or none" if columns is None else f"{columns}, or left out"
            raise UserError(f"transformer.columns is {transformer.columns}, but for these codes must be {allowed}")
        self.spec = spec
        condition_reader = ConditionReader.of(text_encoder, embedding_size, transformer.width)
        self.conditioning = Conditioning(classes, label_dropout, condition_reader)
        self.dropout = dropout
        self.content_embedding = nn.Embedding(
            spec.codebooks * (spec.content_start + self.conditioning.starts), transformer.width
        )
        if spec.any_grid:
            self.grids = Grids(spec, Layout)
        self.step_embedding = (
            PlaceTable(transformer.width) if spec.any_grid else nn.Embedding(spec.longest_length, transformer.width)
        )
        self.transformer = transformer
        self.content_head = CodeHead(transformer.width, spec.codebook_size, transformer.head_norm, spec.codebooks)
        self.lengths = None if spec.gridded else Lengths(spec.longest_length, transformer)
        initialise(self)
        self.condition_reader = condition_reader

    @on_their_grid
    def forward(self, codes: Codes) -> tuple[Float[Tensor, "t *q v"], Int[Tensor, " t *q"]]:
        """Logits of every code from those before it, and the codes themselves."""
        hidden, _ = self._hidden(codes)
        ids = codes.ids.long()
        return self.content_head.code_logits(hidden, ids), ids

    def _hidden(self, codes: Codes) -> tuple[Float[Tensor, "t d"], Float[Tensor, "b d"]]:
        """What the head of contents reads, and what that of lengths reads."""
        packing = self._packing(codes)
        labels = self.conditioning.of_codes(codes, self.training)
        starts = for_each_id(self.spec.content_start + labels, self.spec)
        before = preceding(require_ids(codes.ids, self.spec), starts, packing)
        embedded = self.embed(before, packing.steps, codes.lengths.long()[packing.images])
        first = embed_codes(self.content_embedding, starts)
        if self.condition_reader is not None:
            conditions = self.condition_reader.of_codes(codes, labels)
            embedded = self.condition_reader.told(embedded, conditions, packing)
            first = self.condition_reader.told_each(first, conditions)
        return self.transformer(F.dropout(embedded, self.dropout, self.training), packing), first

    def on_grid(self, grid: tuple[int, int]) -> SequencePrior:
        """The prior of the images of one grid. See `AnyGrid.on_grid`."""
        if not self.spec.any_grid:
            return only_grid(self, grid)
        on = self.grids(grid, self.content_embedding.weight.device)
        return placed(self, on.spec, step_embedding=self.step_embedding(on.maps))

    @on_their_grid
    def loss(self, codes: Codes) -> PriorLoss:
        """The negative log-likelihood in nats a code."""
        hidden, starts = self._hidden(codes)
        nats = {"content": self.content_head.code_nats(hidden, codes.ids.long()).sum()}
        counts = {"content": len(codes.ids)}
        if self.lengths is not None:
            nats["length"] = self.lengths.head.nats(starts, codes.lengths.long() - 1).sum()
            counts["length"] = len(codes)
        return nats_per_code(codes, nats, counts)

    @on_their_grid
    def drawing_order(self, codes: Codes) -> Int[Tensor, " t"]:
        """When each code is drawn. See `Ordered.drawing_order`."""
        return self._packing(codes).steps

    def drawing(self, sampling: VariableLengthSampling) -> StepwiseDrawing:
        """Draws code by code.

        The temperature, top-k and top-p of positions are those of lengths.

        Raises:
            UserError: A length that no image can have, or anything of lengths on a grid, where there is but one.
        """
        if self.spec.gridded:
            options_for(SamplingOptions, "a sequence on a grid", sampling)
        return StepwiseDrawing(SequenceSteps(in_precision(self, sampling.precision), sampling))

    def inpainting(self, sampling: VariableLengthSampling, kept: Kept) -> StepwiseDrawing:
        """Draws as ever, and writes what is kept in place of what was drawn there. See `Inpaints.inpainting`.

        Raises:
            UserError: The codes lie on no grid.
        """
        if not self.spec.gridded:
            raise UserError("codes on no grid have no regions of which any could be kept")
        prior, keeping = in_precision(self, sampling.precision), Keeping(kept, self.spec)
        return StepwiseDrawing(SequenceSteps(prior, sampling, keeping=keeping))

    @on_their_grid
    def choices(self, codes: Codes) -> list[int]:
        """The choices that make an image: its length less one, where that is one, and its codes."""
        self._packing(codes)
        return [*([] if self.lengths is None else (codes.lengths - 1).tolist()), *codes.ids.flatten().tolist()]

    def walk(self, choose: Choose) -> tuple[Codes, Bool[Tensor, "h w"]]:
        """The image that is chosen. See `Codable.walk`. What is known of a sequence on no grid is a shorter one."""
        steps = SequenceSteps(self, self.sampling(), Told(choose))
        state = answered(steps)
        if self.spec.gridded:
            known = torch.arange(self.spec.longest_length, device=steps.device) < state.drawn
            return steps.codes(state), known.view(self.spec.grid)
        return steps.codes(replace(state, length=state.drawn)), steps.finished(state)[None]

    def embed(
        self, contents: Int[Tensor, " n *q"], steps: Int[Tensor, " n"], lengths: Int[Tensor, " n"]
    ) -> Float[Tensor, "n d"]:
        """What the transformer reads."""
        embedded = embed_codes(self.content_embedding, contents) + self.step_embedding(steps)
        return embedded if self.lengths is None else embedded + self.lengths.embedding(lengths - 1)

    def _packing(self, codes: Codes) -> Packing:
        """Where images lie.

        Raises:
            UserError: The codes lie on a grid of another size than the spec's.
        """
        if self.spec.gridded:
            require_grid(codes, self.spec)
        return Packing(codes.lengths.long(), codes.on_host.lengths.tolist())


class Lengths(nn.Module):
    """What a sequence of a length reads of it, and how likely it is to have one, from its start.

    Args:
        longest: The longest.
        transformer: The prior's.
    """

    def __init__(self, longest: int, transformer: SequenceModel) -> None:
        super().__init__()
        self.embedding = nn.Embedding(longest, transformer.width)
        self.head = Head(transformer.width, longest, transformer.head_norm)


@dataclass(frozen=True, eq=False)
class SequenceState:
    """Images under way.

    Attributes:
        laid: The codes drawn, and anything beyond them; the last column is for what follows the last, `[b p+1]` or
            `[b p+1 q]`.
        drawn: How many there are, `[b]`.
        length: How many there will be; 0 where that is not drawn yet, `[b]`.
    """

    laid: Int[Tensor, "b _ *q"]
    drawn: Int[Tensor, " b"]
    length: Int[Tensor, " b"]


class SequenceSteps(Steps[SequenceState]):
    """The step that draws one code of each image, and before the first one its length.

    Args:
        prior: The model.
        sampling: How lengths and codes are drawn.
        choose: Who chooses them; chance by default.
        keeping: What is given of every image; None for nothing.

    Raises:
        UserError: A length that no image can have.
    """

    prior: SequencePrior

    def __init__(
        self,
        prior: SequencePrior,
        sampling: VariableLengthSampling,
        choose: Chooser | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self.prior = prior
        self.keeping = keeping
        self.choose = choose or Drawn(sampling)
        self.guidance = Guidance(sampling.guidance)
        self.device = prior.content_embedding.weight.device
        self.longest = prior.spec.longest_length
        self.draws = prior.spec.codebooks + int(prior.lengths is not None)  # the ids of a content, and a length
        self.choose_code = CodeChooser(prior.content_head, prior.spec.codebook_size, self.guidance, self.choose)
        self.allowed = sequence_lengths(sampling, self.longest).to(self.device)

    def caches(self, rows: int) -> tuple[KeyValueCache]:
        """That of the transformer."""
        return (self.prior.transformer.cache(rows, self.longest),)

    def start(self, images: int) -> SequenceState:
        """Images without a code."""
        drawn = torch.zeros(images, dtype=torch.long, device=self.device)
        length = torch.full_like(drawn, self.longest if self.prior.lengths is None else 0)
        laid = drawn.new_zeros(images, self.longest + 1, *self.prior.spec.id_shape)
        return SequenceState(laid, drawn, length)

    def finished(self, state: SequenceState) -> Bool[Tensor, " b"]:
        """Which images have all codes."""
        return (state.drawn == state.length) & (state.drawn > 0)

    def codes(self, state: SequenceState) -> Codes:
        """The codes of finished images."""
        there = torch.arange(self.longest, device=self.device) < state.length[:, None]
        grid = self.prior.spec.regions
        grains = None if grid is None else state.length.new_zeros(len(there), *grid)
        return Codes(state.laid[:, :-1][there], state.length, grains)

    def step(self, state: SequenceState, inputs: StepInputs) -> SequenceState:
        """Every image reads its last code, or its start, and draws the next."""
        prior, spec, rows, length = self.prior, self.prior.spec, self.guidance.rows, state.length
        starts = for_each_id(spec.content_start + inputs.labels, spec)
        if prior.lengths is not None:
            first = embed_codes(prior.content_embedding, starts)
            if prior.condition_reader is not None:
                first = prior.condition_reader.told_each(first, inputs.conditions)
            logits = self.guidance.logits(prior.lengths.head(first))
            logits = logits.masked_fill(~self.allowed, -torch.inf)
            unknown = length == 0
            drawn = self.choose(draw_position, logits, inputs.noise[:, -1], unknown)
            length = torch.where(unknown, drawn + 1, length)
        last = rows(state.drawn) - 1
        content = rows(state.laid).gather(1, for_each_id(last.clamp(min=0)[:, None], spec))[:, 0]
        content = torch.where(for_each_id(last < 0, spec), starts, content)
        embedded = prior.embed(content, inputs.cursors.steps, rows(length))
        if prior.condition_reader is not None:
            embedded = prior.condition_reader.told_each(embedded, inputs.conditions)
        hidden = prior.transformer.step(embedded, inputs.caches[0], inputs.cursors)
        content = self.choose_code(hidden, inputs.noise, state.drawn < length)
        if self.keeping is not None:
            content = self.keeping.content(state.drawn, content)
        return SequenceState(
            laid=state.laid.scatter(1, for_each_id(state.drawn[:, None], spec), content[:, None]),
            drawn=torch.minimum(state.drawn + 1, length),
            length=length,
        )
