"""One step of drawing images from a DQ-Transformer: the next token of every image of a batch.

Every draw decodes, because only these positions are legal:

- a place that is still free, if its region is unclaimed, or claimed by the granularity at hand;
- ⟨eos⟩ where every claimed region is complete, and never in the finest granularity, which takes the rest.

Where a part of an image is kept, its regions are claimed by their own granularity alone, and its codes take the places
of drawn ones.

An image is finished when all its regions are covered: what would follow is certain.

Axis letters: b image, p place of any granularity's position map, r region, v vocabulary, q id of a code (no axis where
there is one codebook).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vltok.code_maps import first_id, for_each_id
from vltok.codes import Codes
from vltok.drawing.config import SamplingConfig
from vltok.drawing.sampling import Guidance, draw_position
from vltok.nn.sequence_model import KeyValueCache
from vltok.priors.choosing import Chooser, CodeChooser, Drawn
from vltok.priors.keeping import Keeping
from vltok.priors.layout import FREE
from vltok.priors.lengths import CoarseToFinePlan
from vltok.priors.stepwise import StepInputs, Steps

if TYPE_CHECKING:
    from vltok.priors.dq_transformer import DQTransformer


@dataclass(frozen=True, eq=False)
class CoarseToFineState:
    """Images under way.

    The last column of `laid` and `owner` belongs to no place or region: what is to be ignored is written there.

    Attributes:
        content: The last token's content, `[b]` or `[b q]`.
        position: The last token's position, `[b]`.
        granularity: The last token's granularity, `[b]`.
        laid: The codes drawn, at their places, `[b p+1]` or `[b p+1 q]`.
        owner: The granularity that has claimed each region, K where none has, `[b r+1]`.
        spent: The codes of all claimed regions, drawn or still to be drawn, `[b]`.
    """

    content: Int[Tensor, " b *q"]
    position: Int[Tensor, " b"]
    granularity: Int[Tensor, " b"]
    laid: Int[Tensor, "b _ *q"]
    owner: Int[Tensor, "b _"]
    spent: Int[Tensor, " b"]


class CoarseToFineSteps(Steps[CoarseToFineState]):
    """The step that draws one token of each image.

    Args:
        prior: The model.
        sampling: How tokens are drawn.
        choose: Who chooses them; chance by default.
        keeping: What is given of every image; None for nothing.
    """

    prior: DQTransformer

    def __init__(
        self,
        prior: DQTransformer,
        sampling: SamplingConfig,
        choose: Chooser | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self.prior = prior
        self.keeping = keeping
        self.choose = choose or Drawn(sampling)
        self.implied = sampling.positions == "implied"
        self.guidance = Guidance(sampling.guidance)
        self.ordering, self.layout, self.spec = prior.ordering, prior.ordering.layout, prior.spec
        self.device = device = self.layout.region.device
        self.longest = self.ordering.longest - 1  # the last token is never read
        spec = self.spec
        self.draws = 1 + spec.codebooks  # a position and the ids of a content
        self.choose_code = CodeChooser(prior.content_head, spec.codebook_size, self.guidance, self.choose)
        self.plan = CoarseToFinePlan.of(sampling, spec).to(device)
        granularities = range(spec.granularities)
        self.costs = torch.tensor(spec.codes_per_region, device=device)
        self.starts = torch.tensor([spec.position_start(granularity) for granularity in granularities], device=device)
        self.ends = torch.tensor([spec.position_end(granularity) for granularity in granularities], device=device)
        # the place of each position id that can be drawn, and the region of each place; special tokens have none
        self.places = torch.full((spec.granularities, spec.position_start(granularities[-1])), self.layout.count)
        for granularity, offset in enumerate(self.layout.offsets.tolist()):
            size = spec.positions(granularity)
            self.places[granularity, :size] = torch.arange(offset, offset + size)
        self.places = self.places.to(device)
        self.regions = torch.cat([self.layout.region, self.layout.region.new_tensor([self.layout.regions])])
        # the finest granularity's positions in the order of training
        finest = self.ordering.column_granularity == granularities[-1]
        special = self.ordering.column_starts | self.ordering.column_ends
        self.finest_walk = self.ordering.column_position[finest & ~special]

    def caches(self, rows: int) -> tuple[KeyValueCache, KeyValueCache]:
        """Those of the Position- and the Content-Transformer."""
        prior = self.prior
        return (
            prior.position_transformer.cache(rows, self.longest),
            prior.content_transformer.cache(rows, self.longest),
        )

    def start(self, images: int) -> CoarseToFineState:
        """Images that have only their first ⟨sos⟩."""
        zeros = torch.zeros(images, dtype=torch.long, device=self.device)
        laid = self.layout.empty(images, self.layout.count + 1)
        laid[:, -1] = 0
        owner = zeros.new_full((images, self.layout.regions + 1), self.spec.granularities)
        owner[:, -1] = 0
        content = zeros.new_zeros(images, *self.spec.id_shape)
        return CoarseToFineState(content, zeros + self.starts[0], zeros, laid, owner, zeros)

    def finished(self, state: CoarseToFineState) -> Bool[Tensor, " b"]:
        """Which images are covered."""
        return self._complete(state) & (self._unclaimed(state) == 0)

    def codes(self, state: CoarseToFineState) -> Codes:
        """The codes of covered images."""
        return self.layout.collect(state.laid[:, :-1])

    def step(self, state: CoarseToFineState, inputs: StepInputs) -> CoarseToFineState:
        """Every image reads its last token and draws the next: its position, then its content."""
        prior = self.prior
        done = self.finished(state)
        content, position, granularity = self._tokens(state.content, state.position, state.granularity, inputs.labels)
        embedded = prior.embed(content, position, granularity, inputs.cursors.steps)
        if prior.condition_reader is not None:
            embedded = prior.condition_reader.told_each(embedded, inputs.conditions)
        hidden = prior.position_transformer.step(embedded, inputs.caches[0], inputs.cursors)

        # after ⟨eos⟩ stands the next granularity's ⟨sos⟩
        restarts = state.position == self.ends[state.granularity]
        granularity = (state.granularity + restarts.long()).clamp(max=self.spec.granularities - 1)
        logits = prior.position_head.position_logits(hidden, self.guidance.rows(granularity))
        logits = self.guidance.logits(logits)[:, : self.places.shape[1]]
        legal = self._legal(state)
        # of one that ends or is finished the draw is not used: any will do
        allowed = legal | (restarts | done)[:, None]
        logits = logits.masked_fill(~allowed, -torch.inf)
        implied = (granularity == self.spec.granularities - 1) & self.implied
        used = ~(restarts | done)
        position = self.choose(draw_position, logits, inputs.noise[:, 0], used & ~implied, granularity)
        if self.implied:
            first = self.finest_walk[legal[:, self.finest_walk].int().argmax(1)]
            position = torch.where(implied, first, position)
        position = torch.where(restarts, self.starts[granularity], position)

        _, row_position, row_granularity = self._tokens(state.content, position, granularity, inputs.labels)
        hidden = prior.content_transformer.step(
            hidden + prior.embed_position(row_position, row_granularity), inputs.caches[1], inputs.cursors
        )
        ends = position == self.ends[granularity]
        content = self.choose_code(hidden, inputs.noise[:, 1:], used & ~ends, granularity)
        content = torch.where(for_each_id(ends, self.spec), self.spec.content_end, content)
        return self._write(state, content, position, granularity, used & ~ends)

    def _write(
        self, state: CoarseToFineState, content: Tensor, position: Tensor, granularity: Tensor, code: Tensor
    ) -> CoarseToFineState:
        """The state after a token; `code` says which images' tokens are codes."""
        position_id = position.clamp(max=self.places.shape[1] - 1)
        place = torch.where(code, self.places[granularity, position_id], self.layout.count)[:, None]
        if self.keeping is not None:
            content = self.keeping.content(place[:, 0], content)
        region = self.regions[place]
        claims = code & (state.owner.gather(1, region)[:, 0] == self.spec.granularities)
        return replace(
            state,
            content=content,
            position=position,
            granularity=granularity,
            laid=state.laid.scatter(1, for_each_id(place, self.spec), content[:, None]),
            owner=state.owner.scatter(1, region, granularity[:, None]),
            spent=state.spent + claims * self.costs[granularity],
        )

    def _legal(self, state: CoarseToFineState) -> Bool[Tensor, "b v"]:
        """Which positions of its granularity each image may draw."""
        granularity = state.granularity[:, None]
        may_claim, may_end = self.plan.choices(state.granularity, self._unclaimed(state), state.spent)
        place = self.places[state.granularity]
        owner = state.owner.gather(1, self.regions[place])
        free = (owner == granularity) & (first_id(state.laid, self.spec).gather(1, place) == FREE)
        claimable = (owner == self.spec.granularities) & may_claim[:, None]
        ending = may_end & self._complete(state)
        if self.keeping is not None:
            # a region that keeps its granularity is claimed by that one alone, which does not end before
            kept = self.keeping.granularities
            claimable &= (kept[self.regions[place]] == FREE) | (kept[self.regions[place]] == granularity)
            unclaimed = state.owner == self.spec.granularities
            ending &= ~(unclaimed & (kept == granularity)).any(1)
        return (free | claimable).scatter(1, self.ends[granularity], ending[:, None])

    def _unclaimed(self, state: CoarseToFineState) -> Int[Tensor, " b"]:
        return (state.owner == self.spec.granularities).sum(1)

    def _complete(self, state: CoarseToFineState) -> Bool[Tensor, " b"]:
        return (first_id(state.laid, self.spec)[:, :-1] != FREE).sum(1) == state.spent

    def _tokens(self, content: Tensor, position: Tensor, granularity: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The tokens of each row: an image's start names its class, but in the rows that guide."""
        content, position, granularity = (self.guidance.rows(value) for value in (content, position, granularity))
        starts = position == self.starts[granularity]
        content_start, position_offset = self.prior.starts(labels)
        return (
            torch.where(for_each_id(starts, self.spec), for_each_id(content_start, self.spec), content),
            position + starts * position_offset,
            granularity,
        )
