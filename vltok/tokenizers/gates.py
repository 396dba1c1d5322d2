"""Gates: they choose a granularity for each region of an image (the Dynamic Grained Coding module, section 3.2).

Granularities count from coarse to fine: 0 is the coarsest.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vltok.codes import Ratios
from vltok.errors import UserError, check_seed
from vltok.interfaces import Calibrated, Constant, Gate, GateDecision
from vltok.nn.norms import GroupNorm
from vltok.tokenizers.entropy import calibrated_thresholds, entropy_map
from vltok.tokenizers.estimators import ESTIMATORS
from vltok.tokenizers.straight_through import gumbel_like, straight_through

#: Factors double or more from each to the next: no picture has as many.
_MOST_GRANULARITIES = 64


class FeatureGate(Gate):
    """Chooses from the encoder's features, and learns to (eq. 3–6).

    ```
    features, coarse → fine ── group norm ── average to the coarsest grid ──┐
                                                                  concatenate ── linear layers ── logits
    ```

    In training Gumbel noise is added to the logits, and the gradient of the choice is that of their softmax; otherwise
    the largest logit decides.

    Args:
        channels: Width of the encoder's feature maps.
        granularities: Number of factors, K.
        layers: 1 (linear) or 2 (linear, activation, linear).
        norm_groups: Groups of the group norm of each granularity; null for no norm.
        temperature: Of the softmax through which the gradient passes, τ, at the start.
        estimator: How the reconstruction's gradient enters: through the score of the chosen granularity alone, as eq.
            (6) has it (``selected``), or through the scores of all, so that it compares their features (``mixture``).
        final_temperature: What τ falls to, by the same factor each batch; null to stay.
        anneal_steps: Training batches over which it falls.
        soft_steps: Training batches, from the first, in which the features of all granularities are mixed by their
            scores, instead of one being chosen.
        noise: Scale of the Gumbel noise. 1 draws by the softmax, as eq. (5) has it; but a share that is met by draws is
            not met without them, unless it is one half. 0 decides in training as in evaluation.
        activation: Between the layers, where there are two.

    Raises:
        UserError: Channels that the groups do not divide, or a number out of range.
    """

    steps: Tensor

    def __init__(
        self,
        channels: int,
        granularities: int,
        layers: Literal[1, 2] = 1,
        norm_groups: int | None = 32,
        temperature: float = 1.0,
        estimator: Literal["selected", "mixture"] = "selected",
        final_temperature: float | None = None,
        anneal_steps: int = 0,
        soft_steps: int = 0,
        noise: float = 1.0,
        activation: Literal["silu", "relu"] = "silu",
    ) -> None:
        super().__init__()
        if not 1 <= granularities <= _MOST_GRANULARITIES:
            raise UserError(f"gate.granularities must lie between 1 and {_MOST_GRANULARITIES}, not {granularities}")
        if norm_groups is not None and (norm_groups < 1 or channels % norm_groups):
            raise UserError(f"gate.norm_groups must divide gate.channels = {channels} (or be null), not {norm_groups}")
        if temperature <= 0:
            raise UserError(f"gate.temperature must be positive, not {temperature}")
        if final_temperature is not None and final_temperature <= 0:
            raise UserError(f"gate.final_temperature must be positive, not {final_temperature}")
        if (final_temperature is not None) != (anneal_steps > 0):
            raise UserError(
                f"gate.final_temperature and gate.anneal_steps go together, not {final_temperature} and {anneal_steps}"
            )
        if soft_steps < 0:
            raise UserError(f"gate.soft_steps must be at least 0, not {soft_steps}")
        if noise < 0:
            raise UserError(f"gate.noise must be at least 0, not {noise}")
        self.channels = channels
        self.temperature = temperature
        self.estimator = estimator
        self.final_temperature = temperature if final_temperature is None else final_temperature
        self.anneal_steps = anneal_steps
        self.soft_steps = soft_steps
        self.noise = noise
        # without a schedule there is nothing to go on with
        self.register_buffer("steps", torch.zeros(()), persistent=anneal_steps + soft_steps > 0)
        self.norms = nn.ModuleList(
            nn.Identity() if norm_groups is None else GroupNorm(norm_groups, channels, nn.Identity())
            for _ in range(granularities)
        )
        width = granularities * channels
        between = nn.SiLU() if activation == "silu" else nn.ReLU()
        hidden = [nn.Linear(width, width), between] if layers == 2 else []
        self.score = nn.Sequential(*hidden, nn.Linear(width, granularities))

    @property
    def granularities(self) -> int:
        return len(self.norms)

    @property
    def ratios(self) -> None:
        return None

    def forward(self, features: Sequence[Float[Tensor, "b c _ _"]], images: Float[Tensor, "b 3 H W"]) -> GateDecision:
        if features[0].shape[1] != self.channels:
            raise UserError(f"gate.channels is {self.channels}, but the encoder's features have {features[0].shape[1]}")
        coarsest = features[0].shape[2:]
        pooled = [
            F.avg_pool2d(norm(feature), feature.shape[2] // coarsest[0])
            for norm, feature in zip(self.norms, features, strict=True)
        ]
        # in float32 under autocast too: choices among near-equal logits are taken from them
        with torch.autocast(images.device.type, enabled=False):
            logits_bkhw = self.score(torch.cat(pooled, dim=1).float().movedim(1, -1)).movedim(-1, 1)  # eq. (3)
        if not self.training:
            return GateDecision.hard(logits_bkhw.argmax(dim=1), self.granularities, logits_bkhw)  # eq. (4)
        noisy = logits_bkhw + self.noise * gumbel_like(logits_bkhw)
        scores = (noisy / self._temperature()).softmax(dim=1)
        chosen = GateDecision.hard(scores.argmax(dim=1), self.granularities)  # eq. (5)
        weights = ESTIMATORS[self.estimator](chosen.weights, scores)
        if self.soft_steps:
            weights = torch.where(self.steps < self.soft_steps, scores, weights)
        self.steps += 1
        return GateDecision(chosen.grains, straight_through(chosen.assignment, scores), weights, logits_bkhw)

    def _temperature(self) -> Float[Tensor, ""]:
        progress = (self.steps / max(self.anneal_steps, 1)).clamp_max(1)
        return self.temperature * (self.final_temperature / self.temperature) ** progress


class RandomGate(Gate):
    """Gives each image the asked shares of granularities, at random places (the ablation of Table 5).

    Places are drawn anew for each image while training. Otherwise they follow from the seed and the size of the grid,
    and are the same for all images.

    Args:
        ratios: Share of regions of each factor, summing to 1, such as ``{8: 0.5, 16: 0.5}``.
        seed: Draws the places that are used outside training.

    Raises:
        UserError: Ratios that do not sum to 1.
    """

    def __init__(self, ratios: dict[int, float], seed: int = 0) -> None:
        super().__init__()
        check_seed("seed", seed)
        self._ratios = Ratios.of(ratios)
        self.seed = seed

    @property
    def granularities(self) -> int:
        return len(self._ratios.factors)

    @property
    def ratios(self) -> Ratios:
        return self._ratios

    def forward(self, features: Sequence[Float[Tensor, "b c _ _"]], images: Float[Tensor, "b 3 H W"]) -> GateDecision:
        batch, (height, width) = features[0].shape[0], features[0].shape[2:]
        if self.training:
            order = torch.rand(batch, height * width, device=images.device).argsort(dim=1)
        else:
            order = torch.randperm(height * width, generator=torch.Generator().manual_seed(self.seed))
            order = order.to(images.device, non_blocking=True).expand(batch, -1)
        # the first places of the order get the coarsest granularity, the next ones the next
        bounds = [math.floor(share * height * width + 0.5) for share in itertools.accumulate(self._ratios.shares[:-1])]
        places = order.reshape(batch, 1, height, width)
        # one by one: a table of the bounds would have to be copied to the device
        above = torch.cat([places[:, :0], *(places - bound for bound in bounds)], dim=1)
        return GateDecision.hard((above >= 0).sum(dim=1), self.granularities, step_scores=above + 0.5)


class FixedGate(Gate, Constant):
    """Gives every region the same granularity; with one granularity, the tokenizer is a fixed-length VQGAN.

    Args:
        granularity: The granularity, counted from 0, the coarsest.
        granularities: Number of factors, K.

    Raises:
        UserError: There is no such granularity.
    """

    def __init__(self, granularity: int = 0, granularities: int = 1) -> None:
        super().__init__()
        if not 0 <= granularity < granularities:
            raise UserError(f"gate.granularity must be one of 0…{granularities - 1}, not {granularity}")
        self._granularity = granularity
        self._granularities = granularities

    @property
    def granularity(self) -> int:
        return self._granularity

    @property
    def granularities(self) -> int:
        return self._granularities

    @property
    def ratios(self) -> None:
        return None

    def forward(self, features: Sequence[Float[Tensor, "b c _ _"]], images: Float[Tensor, "b 3 H W"]) -> GateDecision:
        batch, (height, width) = features[0].shape[0], features[0].shape[2:]
        grains = torch.full((batch, height, width), self._granularity, device=images.device)
        return GateDecision.hard(grains, self._granularities)


class EntropyGate(Gate, Calibrated):
    """Gives regions of higher image entropy a finer granularity (the original authors' later version).

    A region's entropy is compared with K − 1 thresholds. They are measured before training, so that the ratios hold
    over the training images, and are stored with the model.

    Args:
        ratios: Share of regions of each factor over the training images, summing to 1, such as ``{8: 0.5, 16: 0.5}``.
        thresholds: Entropies in nats, ascending, K − 1 of them; null to measure them on the training images.
        bins: The lowest and the highest of the 32 bins of luminance of which the entropy is taken; ``[0, 1]`` goes with
            the threshold tables that the original authors published.

    Raises:
        UserError: Ratios that do not sum to 1, or thresholds that are not K − 1 ascending numbers.
    """

    thresholds: Tensor

    def __init__(
        self,
        ratios: dict[int, float],
        thresholds: list[float] | None = None,
        bins: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        self._ratios = Ratios.of(ratios)
        self.bins = (bins[0], bins[1])
        count = self.granularities - 1
        if thresholds is not None and (len(thresholds) != count or thresholds != sorted(thresholds)):
            raise UserError(
                f"gate.thresholds must be {count} ascending numbers, one less than ratios, not {thresholds}"
            )
        # not-a-number stands for what is not measured yet
        values = [math.nan] * count if thresholds is None else thresholds
        self.register_buffer("thresholds", torch.tensor(values, dtype=torch.float32))
        self._known_calibrated = False
        self.register_load_state_dict_post_hook(EntropyGate._forget)

    @property
    def granularities(self) -> int:
        return len(self._ratios.factors)

    @property
    def ratios(self) -> Ratios:
        return self._ratios

    @property
    def calibrated(self) -> bool:
        return not bool(self.thresholds.isnan().any())

    def calibrate(self, batches: Iterable[Float[Tensor, "_ 3 _ _"]]) -> None:
        """Measure the thresholds that give the ratios over batches of training images, in bounded memory.

        Raises:
            UserError: There are no images.
        """
        region = self._ratios.factors[0]
        values = calibrated_thresholds(batches, region, self._ratios.shares, self.bins, self.thresholds.device)
        self.thresholds.copy_(torch.tensor(values))

    def forward(self, features: Sequence[Float[Tensor, "b c _ _"]], images: Float[Tensor, "b 3 H W"]) -> GateDecision:
        if not self._known_calibrated:  # asked once: the answer is read back from the device
            if not self.calibrated:
                raise UserError(
                    "the entropy gate has no thresholds yet: train it with `vltok fit`, which measures them, call "
                    "gate.calibrate(batches of training images), or give gate.thresholds"
                )
            self._known_calibrated = True
        entropies = entropy_map(images, self._ratios.factors[0], self.bins)
        above = entropies[:, None] - self.thresholds[:, None, None]
        grains = (entropies[:, None] > self.thresholds[:, None, None]).sum(dim=1)
        return GateDecision.hard(grains, self.granularities, step_scores=above)

    def _forget(self, _incompatible: object) -> None:
        """Loaded thresholds may be missing ones."""
        self._known_calibrated = False
