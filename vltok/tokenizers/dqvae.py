"""DQ-VAE: the tokenizer that gives each region of an image as many codes as it needs (section 3.2)."""

import math
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.code_maps import top_left
from vltok.codes import Codes, CodeSpec, Ratios
from vltok.errors import UserError
from vltok.interfaces import (
    Adaptive,
    Adversarial,
    Alternatives,
    Budget,
    Constant,
    Decoder,
    Encoder,
    Foreseeing,
    Gate,
    GateDecision,
    LengthTargeted,
    Quantized,
    Quantizer,
    RatioTargeted,
    Steerable,
    Taught,
    Tokenizer,
    TokenizerOutput,
)
from vltok.links import Link
from vltok.measures.regions import region_errors
from vltok.nn.layout import fastest_layout
from vltok.nn.modes import evaluating
from vltok.nn.precision import full_float32
from vltok.tokenizers.grain_steps import GrainSteps
from vltok.tokenizers.straight_through import straight_through


class DQVAE(Tokenizer, Adaptive, Adversarial, LengthTargeted, RatioTargeted, Steerable):
    """Dynamic-Quantization VAE: features of several granularities, of which a gate picks one for each region.

    ```
                    ┌── feature map of f_K ──┐                            ┌────────────┐
             ┌──────┴┐         …             ├─► × weights, replicate, + ─► project_in ─► quantizer ──► Codes
    images ─►│encoder│── feature map of f_1 ─┤             ▲              └────────────┘      │
       │     └───────┘                       ▼             │                                  │ code map on the
       └──────────────────────────────────► gate ──────────┤                                  │ finest grid
                                                           ▼             ┌───────┐    ┌───────▼───┐
                                                        budget  images ◄─┤decoder│◄───┤project_out│
                                                                         └───────┘    └───────────┘
    ```

    Coarse features and codes are replicated to the finest grid by nearest neighbour; in the quantizer each code counts
    once.

    Args:
        encoder: Gives a feature map for each factor.
        gate: Chooses a granularity for each region.
        quantizer: Holds the codebook.
        decoder: Paints images from vectors on the finest grid.
        budget: Keeps the use of codes near a target; null where the gate does so itself.

    Raises:
        UserError: The parts do not fit each other.
    """

    links = (
        Link("gate.channels", "encoder.channels", must_agree=True),
        Link("gate.granularities", "encoder.factors", len),
        Link("gate.codebook_size", "quantizer.size", must_agree=True),
        Link("gate.ratios", "budget.ratios"),
        Link("budget.ratios", "gate.ratios"),
        Link("budget.factors", "encoder.factors"),
        Link("decoder.channels", "encoder.channels"),  # project_out takes any
        Link("decoder.factor", "encoder.factors", min),
    )

    _shares: Tensor

    def __init__(
        self, encoder: Encoder, gate: Gate, quantizer: Quantizer, decoder: Decoder, budget: Budget | None = None
    ) -> None:
        super().__init__()
        _check_fit(encoder, gate, quantizer, decoder, budget)
        self.encoder = encoder
        self.gate = gate
        self.quantizer = quantizer
        self.decoder = decoder
        self.budget = budget
        self.project_in = nn.Conv2d(encoder.channels, quantizer.dimension, kernel_size=1)
        self.project_out = nn.Conv2d(quantizer.dimension, decoder.channels, kernel_size=1)
        self._spec = CodeSpec(quantizer.size, encoder.factors, codebooks=quantizer.codebooks)
        # for each granularity, one over the number of copies that a code has on the finest grid
        shares = torch.tensor(self._spec.codes_per_region) / self._spec.codes_per_region[-1]
        self.register_buffer("_shares", shares, persistent=False)

    @property
    def spec(self) -> CodeSpec:
        return self._spec

    @property
    def divisor(self) -> int:
        return self._spec.factors[0]

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.last_layer

    @property
    def target_ratios(self) -> Ratios | None:
        if self.budget is not None:
            return self.budget.ratios or self.gate.ratios
        if isinstance(self.gate, Constant):  # knows a granularity, but not the factors
            shares = [float(k == self.gate.granularity) for k in range(self.gate.granularities)]
            return Ratios(self._spec.factors, tuple(shares))
        return self.gate.ratios

    def expected_length(self, height: int, width: int) -> float | None:
        self._check_size(height, width)
        regions = (height // self.divisor) * (width // self.divisor)
        # a gate that keeps its ratios itself keeps them whatever the budget asks for
        if self.gate.ratios is None and self.budget is not None:
            return self.budget.expected_length(regions)
        return None if self.target_ratios is None else regions * self.target_ratios.codes_per_region

    @torch.no_grad()
    @full_float32()
    def encode_batch(self, images: Float[Tensor, "b 3 H W"]) -> Codes:
        """The codes of images, without gradient. Decided as in evaluation whatever the mode, and nothing is updated.

        Raises:
            UserError: A side of the images is no multiple of `divisor`.
        """
        self._check_size(*images.shape[2:])
        with evaluating(self):
            features = self.encoder(fastest_layout(images))
            decision = self.gate(features, images)
            ids = self._quantized(features, decision).ids
            return Codes.from_code_map(ids, decision.grains, self._spec)

    @torch.no_grad()
    @full_float32()
    def decode_batch(self, codes: Codes) -> Float[Tensor, "b 3 H W"]:
        """The images of codes, of any mix of lengths, without gradient."""
        with evaluating(self):
            vectors = self.quantizer.lookup(codes.to_code_map(self._spec))
            return self._painted(vectors)

    @torch.no_grad()
    def alternatives(self, images: Float[Tensor, "b 3 H W"]) -> Alternatives:
        """The choice for images and its alternatives, without gradient; nothing is updated.

        Raises:
            UserError: A side of the images is no multiple of `divisor`.
        """
        self._check_size(*images.shape[2:])
        with evaluating(self):
            features = self.encoder(fastest_layout(images))
            return Alternatives(self.gate(features, images), self._code_maps(features))

    @full_float32()
    def candidates(self, images: Float[Tensor, "b 3 H W"]) -> GrainSteps:
        """What images could be encoded to, by the gate's scores of its steps to finer granularities.

        Raises:
            UserError: A side of the images is no multiple of `divisor`, or the gate ranks no regions.
        """
        return GrainSteps(self.alternatives(images), self._spec)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> TokenizerOutput:
        """Encode and decode with gradients.

        Losses: ``quantization``; ``budget`` where there is one; in training ``gate``, where the gate is `Taught` or
        `Foreseeing`.
        """
        self._check_size(*images.shape[2:])
        features = self.encoder(fastest_layout(images))
        decision = self.gate(features, images)
        quantized = self._quantized(features, decision)
        found = quantized.vectors
        if not self.training:
            # Rounding may part two copies of a coarse vector that lies between two codes. `decode` knows one code for
            # both; so does this, and gives the same image. (In training the codebook may have moved on already.)
            decoded = self.quantizer.lookup(top_left(quantized.ids, decision.grains, self._spec))
            found = straight_through(decoded, found)
        losses = {"quantization": quantized.loss}
        if self.budget is not None:
            losses["budget"] = self.budget(decision.assignment)
        reconstruction = self._painted(found)
        # after the reconstruction: autocast keeps the weights that it has cast, of which no_grad has none to learn by
        if self.training and isinstance(self.gate, Taught):
            losses["gate"] = self._teach(self.gate, features, decision, images)
        elif self.training and isinstance(self.gate, Foreseeing):
            losses["gate"] = self.gate.foresee(features, self._finest_codes(features[-1]))
        return TokenizerOutput(reconstruction, Codes.from_code_map(quantized.ids, decision.grains, self._spec), losses)

    def _painted(self, vectors: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 _ _"]:
        """The images of codes' vectors on the finest grid."""
        return self.decoder(self.project_out(fastest_layout(vectors)))

    def _quantized(self, features: Sequence[Float[Tensor, "b c _ _"]], decision: GateDecision) -> Quantized:
        """Each region's features at the granularity that was decided, quantized, on the finest grid."""
        finest = self._spec.sides[-1]
        routed: Tensor | int = 0
        for granularity, (feature, side) in enumerate(zip(features, self._spec.sides, strict=True)):
            weights = _replicate(decision.weights[:, granularity, None].to(feature.dtype), side)
            routed = routed + _replicate(weights * feature, finest // side)
        return self.quantizer(self.project_in(routed), self._replication_weights(decision.grains))

    def _code_maps(self, features: Sequence[Float[Tensor, "b c _ _"]]) -> Int[Tensor, "k b H W *q"]:
        """The code map of each granularity, if all regions had it; the quantizer must be in evaluation mode."""
        finest = self._spec.sides[-1]
        vectors = [
            self.project_in(_replicate(feature, finest // side))
            for feature, side in zip(features, self._spec.sides, strict=True)
        ]
        return torch.stack([self.quantizer(each).ids for each in vectors])

    @torch.compiler.disable  # it changes modes for a moment
    @torch.no_grad()
    def _finest_codes(self, features: Float[Tensor, "b c H W"]) -> Int[Tensor, "b H W"]:
        """The codes, as in evaluation, if all regions had the finest granularity."""
        with evaluating(self):
            return self.quantizer(self.project_in(features)).ids

    @torch.compiler.disable  # a second graph for a part of the batch is not worth its compilation
    def _teach(
        self,
        gate: Taught,
        features: Sequence[Float[Tensor, "b c _ _"]],
        decision: GateDecision,
        images: Float[Tensor, "b 3 H W"],
    ) -> Float[Tensor, ""]:
        """Show the gate what other choices would have cost, on the first images of the batch."""
        count = math.ceil(gate.taught_share * len(images))
        features, images = [feature[:count] for feature in features], images[:count]
        lessons = gate.lessons(decision.grains[:count])
        with torch.no_grad(), evaluating(self):
            alternatives = Alternatives(decision, self._code_maps(features))
            ids = torch.cat([alternatives.mixture(grains) for grains in lessons])
            decoded = self._painted(self.quantizer.lookup(ids))
            errors = region_errors(decoded, images.repeat(len(lessons), 1, 1, 1), self.divisor)
        return gate.teach(features, lessons, errors.view(lessons.shape))

    def _replication_weights(self, grains: Int[Tensor, "b h w"]) -> Float[Tensor, "b 1 H W"]:
        """One over the number of copies of each place's code."""
        return _replicate(self._shares[grains][:, None], self._spec.sides[-1])

    def _check_size(self, height: int, width: int) -> None:
        if height % self.divisor or width % self.divisor or not height or not width:
            near = [max(round(side / self.divisor), 1) * self.divisor for side in (height, width)]
            raise UserError(
                f"images of {height} × {width} pixels do not fit: the sides must be multiples of {self.divisor}, the "
                f"coarsest factor; the nearest size is {near[0]} × {near[1]}"
            )


def _replicate(grid: Float[Tensor, "b c _ _"], times: int) -> Float[Tensor, "b c _ _"]:
    """Replicate each cell to times × times cells."""
    return grid if times == 1 else F.interpolate(grid, scale_factor=times, mode="nearest")


def _check_fit(encoder: Encoder, gate: Gate, quantizer: Quantizer, decoder: Decoder, budget: Budget | None) -> None:
    factors = list(encoder.factors)
    if decoder.factor != factors[-1]:
        raise UserError(f"decoder.factor is {decoder.factor}, but must be the finest of encoder.factors {factors}")
    if gate.granularities != len(factors):
        raise UserError(
            f"the gate decides among {gate.granularities} granularities, but encoder.factors {factors} are "
            f"{len(factors)}; set gate.granularities or gate.ratios to match"
        )
    if isinstance(gate, Foreseeing) and gate.codebook_size != quantizer.size:
        raise UserError(f"gate.codebook_size is {gate.codebook_size}, but the quantizer has {quantizer.size} codes")
    if isinstance(gate, Foreseeing) and quantizer.codebooks > 1:
        raise UserError(
            f"gate: {type(gate).__name__} foresees codes of one id, but those of the quantizer have "
            f"{quantizer.codebooks}: give another gate, such as gain"
        )
    if gate.ratios is not None and list(gate.ratios.factors) != factors:
        raise UserError(f"gate.ratios name factors {list(gate.ratios.factors)}, but encoder.factors are {factors}")
    if budget is not None and list(budget.factors) != factors:
        raise UserError(f"the budget is for factors {list(budget.factors)}, but encoder.factors are {factors}")
    if budget is not None and budget.ratios and gate.ratios and budget.ratios != gate.ratios:
        raise UserError(
            f"gate.ratios {_by_factor(gate.ratios)} and budget.ratios {_by_factor(budget.ratios)} differ; this "
            f"gate keeps its ratios itself: give the same, or no budget"
        )
    if budget is not None and budget.ratios is None and gate.ratios is not None:
        warnings.warn(
            f"the budget has no effect: this gate keeps its ratios {_by_factor(gate.ratios)} itself, which come to "
            f"{gate.ratios.codes_per_region:g} codes a region; change gate.ratios, and leave the budget out",
            stacklevel=3,
        )


def _by_factor(ratios: Ratios) -> dict[int, float]:
    return dict(zip(ratios.factors, ratios.shares, strict=True))
