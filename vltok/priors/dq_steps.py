"""One step of drawing images from a DQ-Transformer: the next token of every image of a batch.

Every draw decodes, because only these positions are legal:

- a place that is still free, if its region is unclaimed, or claimed by the granularity at hand;
- ⟨eos⟩ where every claimed region is complete, and never in the finest granularity, which takes the rest.

An image is finished when all its regions are covered: what would follow is certain.

Axis letters: b image, n row (an image, or with guidance an image with its class and one without), p place of any
granularity, r region, v vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.codes import Codes
from vltok.interfaces import SamplingConfig
from vltok.nn.transformer import Cursors, KeyValueCache
from vltok.priors.lengths import LengthPlan
from vltok.priors.sampling import drawn, filtered, streams, uniforms

if TYPE_CHECKING:
    from vltok.priors.dq_transformer import DQTransformer


@dataclass(frozen=True, eq=False)
class State:
    """Images under way.

    The last column of `contents`, `taken` and `owner` belongs to no place or region: what is to be ignored is written
    there.

    Attributes:
        image: The number of each image, `[b]`.
        stream: Its random stream, `[b]`.
        label: Its class, or the number of classes where it has none, `[b]`.
        started: The step of the loop in which it started, `[b]`.
        content: Its last token's content, `[b]`.
        position: Its last token's position, `[b]`.
        granularity: Its last token's granularity, `[b]`.
        contents: The codes drawn, at their places, `[b p+1]`.
        taken: Which places have a code, `[b p+1]`.
        owner: The granularity that has claimed each region, K where none has, `[b r+1]`.
        spent: The codes of all claimed regions, drawn or still to be drawn, `[b]`.
    """

    image: Int[Tensor, " b"]
    stream: Int[Tensor, " b"]
    label: Int[Tensor, " b"]
    started: Int[Tensor, " b"]
    content: Int[Tensor, " b"]
    position: Int[Tensor, " b"]
    granularity: Int[Tensor, " b"]
    contents: Int[Tensor, "b _"]
    taken: Bool[Tensor, "b _"]
    owner: Int[Tensor, "b _"]
    spent: Int[Tensor, " b"]

    def select(self, rows: Int[Tensor, " n"]) -> State:
        """Some images."""
        return State(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def replace(self, rows: Int[Tensor, " n"], fresh: State) -> State:
        """Other images in some rows."""
        return State(
            **{
                field.name: getattr(self, field.name).index_copy(0, rows, getattr(fresh, field.name))
                for field in fields(self)
            }
        )


class Sampler:
    """What stays the same while images are drawn, and the step that draws one token of each.

    Args:
        prior: The model.
        sampling: How tokens are drawn.
        seed: That of the images' random streams.
    """

    def __init__(self, prior: DQTransformer, sampling: SamplingConfig, seed: int) -> None:
        self.prior = prior = _in_precision(prior, getattr(torch, sampling.precision))
        self.sampling = sampling
        self.seed = seed
        self.guided = sampling.guidance != 1
        self.ordering = prior.ordering
        spec = self.spec = prior.spec
        device = self.ordering.place_region.device
        self.plan = LengthPlan.of(sampling, spec).to(device)
        self.granularities = spec.granularities
        self.tracks = torch.arange(2, device=device)
        granularities = range(self.granularities)
        self.costs = torch.tensor(spec.codes_per_region, device=device)
        self.starts = torch.tensor([spec.position_start(granularity) for granularity in granularities], device=device)
        self.ends = torch.tensor([spec.position_end(granularity) for granularity in granularities], device=device)
        # the place of each position id that can be drawn, and the region of each place; special tokens have none
        places, regions = self.ordering.places, spec.positions(0)
        self.places = torch.full((self.granularities, spec.position_start(self.granularities - 1)), places)
        for granularity, offset in enumerate(self.ordering.place_offsets.tolist()):
            size = spec.positions(granularity)
            self.places[granularity, :size] = torch.arange(offset, offset + size)
        self.places = self.places.to(device)
        self.regions = torch.cat([self.ordering.place_region, self.ordering.place_region.new_tensor([regions])])
        # the finest granularity's positions in the order of training
        finest = self.ordering.column_granularity == self.granularities - 1
        special = self.ordering.column_starts | self.ordering.column_ends
        self.finest_walk = self.ordering.column_position[finest & ~special]

    def caches(self, images: int) -> tuple[KeyValueCache, KeyValueCache]:
        """Empty caches of both transformers."""
        rows = images * (2 if self.guided else 1)
        # the last token is never read
        longest = self.ordering.longest - 1
        return self.prior.position_transformer.cache(rows, longest), self.prior.content_transformer.cache(rows, longest)

    def shrink(self, caches: tuple[KeyValueCache, KeyValueCache], rows: Int[Tensor, " n"], images: int) -> None:
        """Keep the caches of some of so many images."""
        rows = torch.cat([rows, rows + images]) if self.guided else rows
        for cache in caches:
            cache.keep(rows)

    def start(self, images: Int[Tensor, " b"], labels: Int[Tensor, " b"], step: int) -> State:
        """Images that have only their first ⟨sos⟩."""
        places, regions = self.ordering.places, self.spec.positions(0)
        zeros = torch.zeros_like(images)
        taken = torch.zeros(len(images), places + 1, dtype=torch.bool, device=images.device)
        taken[:, -1] = True
        owner = taken.new_full((len(images), regions + 1), self.granularities, dtype=torch.long)
        owner[:, -1] = 0
        return State(
            image=images,
            stream=streams(self.seed, images),
            label=labels,
            started=zeros + step,
            content=zeros,
            position=zeros + self.starts[0],
            granularity=zeros,
            contents=taken.new_zeros(taken.shape, dtype=torch.long),
            taken=taken,
            owner=owner,
            spent=zeros,
        )

    def finished(self, state: State) -> Bool[Tensor, " b"]:
        """Which images are covered."""
        return self._complete(state) & (self._unclaimed(state) == 0)

    def codes(self, state: State, rows: Int[Tensor, " n"]) -> Codes:
        """The codes of finished images."""
        return self.ordering.codes_at(state.contents[rows, :-1], state.taken[rows, :-1])

    def step(self, state: State, caches: tuple[KeyValueCache, KeyValueCache], step: int, furthest: int) -> State:
        """Every image reads its last token and draws the next: its position, then its content.

        Args:
            state: The images.
            caches: Those of the Position- and the Content-Transformer; the tokens are added.
            step: The step of the loop.
            furthest: The most tokens that an unfinished image has read before.
        """
        prior, sampling = self.prior, self.sampling
        done = self.finished(state)
        # A finished image draws on until the next look: nothing of it is kept.
        count = (step - state.started).clamp(max=self.ordering.longest - 2)
        noise = uniforms(state.stream[:, None].expand(-1, 2), 2 * count[:, None] + self.tracks)
        cursors = Cursors.at(self._rows(count), furthest, self.ordering.longest - 1)
        content, position, granularity = self._tokens(state.content, state.position, state.granularity, state.label)
        hidden = prior.position_transformer.step(
            prior.embed(content, position, granularity, cursors.steps), caches[0], cursors
        )

        # after ⟨eos⟩ stands the next granularity's ⟨sos⟩
        restarts = state.position == self.ends[state.granularity]
        granularity = (state.granularity + restarts.long()).clamp(max=self.granularities - 1)
        logits = self._guide(prior.position_head(hidden))[:, : self.places.shape[1]]
        legal = self._legal(state)
        allowed = legal | (restarts | done)[:, None]
        position = drawn(
            filtered(
                logits.masked_fill(~allowed, -torch.inf),
                sampling.position_temperature,
                sampling.position_top_k,
                sampling.position_top_p,
            ),
            noise[:, 0],
        )
        if sampling.positions == "implied":
            first = self.finest_walk[legal[:, self.finest_walk].int().argmax(1)]
            position = torch.where(granularity == self.granularities - 1, first, position)
        position = torch.where(restarts, self.starts[granularity], position)

        _, row_position, row_granularity = self._tokens(state.content, position, granularity, state.label)
        hidden = prior.content_transformer.step(
            hidden + prior.embed_position(row_position, row_granularity), caches[1], cursors
        )
        logits = self._guide(prior.content_head(hidden))[:, : self.spec.codebook_size]
        content = drawn(
            filtered(logits, sampling.temperature, sampling.top_k, sampling.top_p),
            noise[:, 1],
        )
        ends = position == self.ends[granularity]
        content = torch.where(ends, self.spec.content_end, content)
        return self._write(state, content, position, granularity, ~(restarts | ends | done))

    def _write(self, state: State, content: Tensor, position: Tensor, granularity: Tensor, code: Tensor) -> State:
        """The state after a token; `code` says which images' tokens are codes."""
        nowhere = self.ordering.places
        position_id = position.clamp(max=self.places.shape[1] - 1)
        place = torch.where(code, self.places[granularity, position_id], nowhere)[:, None]
        region = self.regions[place]
        claims = code & (state.owner.gather(1, region)[:, 0] == self.granularities)
        return replace(
            state,
            content=content,
            position=position,
            granularity=granularity,
            contents=state.contents.scatter(1, place, content[:, None]),
            taken=state.taken.scatter(1, place, True),
            owner=state.owner.scatter(1, region, granularity[:, None]),
            spent=state.spent + claims * self.costs[granularity],
        )

    def _legal(self, state: State) -> Bool[Tensor, "b v"]:
        """Which positions of its granularity each image may draw."""
        granularity = state.granularity[:, None]
        may_claim, may_end = self.plan.choices(state.granularity, self._unclaimed(state), state.spent)
        place = self.places[state.granularity]
        owner = state.owner.gather(1, self.regions[place])
        free = (owner == granularity) & ~state.taken.gather(1, place)
        claimable = (owner == self.granularities) & may_claim[:, None]
        ending = may_end & self._complete(state)
        return (free | claimable).scatter(1, self.ends[granularity], ending[:, None])

    def _unclaimed(self, state: State) -> Int[Tensor, " b"]:
        return (state.owner == self.granularities).sum(1)

    def _complete(self, state: State) -> Bool[Tensor, " b"]:
        return state.taken[:, :-1].sum(1) == state.spent

    def _rows(self, values: Tensor) -> Tensor:
        return torch.cat([values, values]) if self.guided else values

    def _tokens(self, content: Tensor, position: Tensor, granularity: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        """The tokens of each row: an image's start names its class, but in the rows that guide."""
        if self.guided:
            label = torch.cat([label, torch.full_like(label, self.prior.classes)])
        content, position, granularity = self._rows(content), self._rows(position), self._rows(granularity)
        starts = position == self.starts[granularity]
        content_start, position_offset = self.prior.starts(label)
        return (
            torch.where(starts, content_start, content),
            position + starts * position_offset,
            granularity,
        )

    def _guide(self, logits: Float[Tensor, "n v"]) -> Float[Tensor, "b v"]:
        """Classifier-free guidance (Ho and Salimans, 2022) of logits."""
        logits = logits.float()
        if not self.guided:
            return logits
        conditional, unconditional = logits.chunk(2)
        return unconditional + self.sampling.guidance * (conditional - unconditional)


def _in_precision(prior: DQTransformer, dtype: torch.dtype) -> DQTransformer:
    """The prior with its matrices in a precision; norms, embeddings and the residual stream keep theirs."""
    matrices = [module for module in prior.modules() if isinstance(module, nn.Linear)]
    if all(matrix.weight.dtype == dtype for matrix in matrices):
        return prior
    prior = copy.deepcopy(prior)
    for module in prior.modules():
        if isinstance(module, nn.Linear):
            module.to(dtype)
    return prior
