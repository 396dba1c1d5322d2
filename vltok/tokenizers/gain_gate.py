"""A gate that knows what finer codes gain, because it was shown."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.codes import CodeSpec, Ratios
from vltok.errors import UserError
from vltok.interfaces import Gate, GateDecision, Taught
from vltok.measures.regions import region_errors
from vltok.processes import rows_of_all, sum_over_processes, world
from vltok.tokenizers.thresholds import pace, quantile

#: Against division by zero: the least mean gain, in squared error of a region; one value off by 1 of 255 levels.
LEAST_GAIN = (2 / 255) ** 2
#: The golden ratio less 1.
_GOLDEN = (math.sqrt(5) - 1) / 2
#: Rounds of coordinate ascent for the prices of a batch, from those of the batches before.
ROUNDS = 3


class GainGate(Gate, Taught):
    """Predicts from the encoder's features how much each region gains by finer codes, and gives them where it is most.

    ```
    features, coarse → fine ── mean and root mean square over each region ── linear, SiLU, linear ── gains of the K − 1
                                                                                                     steps to finer
    value of granularity k = gains of the steps up to k − price of k;   the largest value decides
    ```

    The gain of a step is the fall of the region's squared error, and at most what varies within the cells of the
    coarser codes: finer codes cannot show more than that. (In squared error a flat wall of an imprecise colour gains
    too, by four corrected colours. Nobody sees that, and a better coarse code would do the same.)

    In training the tokenizer decodes part of each batch with half of the regions at another granularity, and then with
    the other half, and the gate regresses what that gained or lost. Its gradient does not reach the encoder. (Decoding
    everything at one granularity would not do: a decoder that has learned from mixtures exaggerates there what the gate
    already believes.)

    The K − 1 prices make the shares of granularities over the training images equal to the ratios: they are the dual
    variables of the assignment that gains most at these ratios. They follow those of each batch by a moving average,
    and are stored with the model. So single images get more codes or fewer, and a choice takes one forward pass.

    Others choose lengths by what codes are worth, too. Here the share of finer codes is given, and each region of an
    image is a choice of its own, taught by decodings while the tokenizer trains.

    - EVATok (https://arxiv.org/abs/2603.12267) searches, with a proxy tokenizer, the assignment of codes to blocks of a
      video that is best in quality and cost, trains a router to predict it, and then a tokenizer that follows it.
      `gain` needs one training, searches nothing, and sees what single regions gain.
    - InfoTok (https://arxiv.org/abs/2512.16975) gives a video as many codes as its likelihood asks for, estimated by
      the evidence lower bound, and a transformer squeezes it into them. `gain` asks how much an error falls, not how
      large it or a likelihood is.
    - KARL (https://arxiv.org/abs/2507.07995) is told a quality to reach, and predicts in one pass where the sequence of
      an image's codes may stop. `gain` also takes one pass, but is given the length, and its codes have places.
    - STAT (https://arxiv.org/abs/2601.14246) gives each code of a sequence a probability to be kept, which falls along
      it and is aligned with a measure of the image's complexity. `gain` predicts what was measured by decoding.

    Args:
        channels: Width of the encoder's feature maps.
        ratios: Share of regions of each factor over the training images, summing to 1, such as ``{8: 0.5, 16: 0.5}``.
        hidden: Width of the hidden layer.
        taught_share: Share of the images of each batch whose alternatives are decoded.
        decay: Share of the moving averages of the prices and of the mean gain that a training step keeps.
        drawn: Two ratios, between which those of each training batch are spread evenly, so that the model has seen
            every rate in between (`vltok.rates`); null to train at `ratios` alone. Outside training, `ratios` count.

    Raises:
        UserError: Ratios that do not sum to 1, are 0 or of less than two factors, or a number out of range.
    """

    prices: Tensor
    mean_gain: Tensor
    _costs: Tensor
    _shares: Tensor
    _drawn: Tensor
    steps: Tensor

    def __init__(
        self,
        channels: int,
        ratios: dict[int, float],
        hidden: int = 64,
        taught_share: float = 0.25,
        decay: float = 0.95,
        drawn: list[dict[int, float]] | None = None,
    ) -> None:
        super().__init__()
        self._ratios = Ratios.of(ratios)
        if len(ratios) < 2 or min(self._ratios.shares) == 0:
            raise UserError(
                f"gate.ratios must be shares above 0 of at least two factors, not {ratios}: leave a factor that no "
                "region is to have out of the encoder's and the gate's; for a single one take the gate 'fixed'"
            )
        for name, value in (("channels", channels), ("hidden", hidden)):
            if value < 1:
                raise UserError(f"gate.{name} must be at least 1, not {value}")
        if not 0 < taught_share <= 1:
            raise UserError(f"gate.taught_share must lie in (0, 1], not {taught_share}")
        if not 0 < decay < 1:
            raise UserError(f"gate.decay must lie between 0 and 1, not {decay}")
        ends = [Ratios.of(each) for each in drawn or []]
        if drawn is not None and (len(ends) != 2 or any(each.factors != self._ratios.factors for each in ends)):
            raise UserError(f"gate.drawn must be two ratios of the factors {list(self._ratios.factors)}, not {drawn}")
        self.channels = channels
        self.decay = decay
        self._taught_share = taught_share
        count = self.granularities - 1
        self.predict = nn.Sequential(
            nn.Linear(2 * self.granularities * channels, hidden), nn.SiLU(), nn.Linear(hidden, count)
        )
        costs = CodeSpec(1, self._ratios.factors).codes_per_step
        self.register_buffer("_costs", torch.tensor(costs), persistent=False)
        self.register_buffer("_shares", torch.tensor(self._ratios.shares), persistent=False)
        self.register_buffer("_drawn", torch.tensor([each.shares for each in ends]), persistent=False)
        self.register_buffer("prices", torch.zeros(count))
        self.register_buffer("mean_gain", torch.ones(()))
        self.register_buffer("steps", torch.zeros(()))

    @property
    def granularities(self) -> int:
        return len(self._ratios.factors)

    @property
    def ratios(self) -> Ratios:
        return self._ratios

    @property
    def taught_share(self) -> float:
        return self._taught_share

    def forward(self, features: Sequence[Float[Tensor, "b c _ _"]], images: Float[Tensor, "b 3 H W"]) -> GateDecision:
        with torch.no_grad():
            gains = self._gains(features).minimum(self._detail(images) / self.mean_gain)
            worths = _worths(gains)
            prices = self._batch_prices(worths) if self.training else self.prices
            values = worths - F.pad(prices, (1, 0))[:, None, None]
            scores = gains * self.mean_gain / self._costs[:, None, None]
        return GateDecision.hard(values.argmax(dim=1), self.granularities, values, scores)

    def lessons(self, grains: Int[Tensor, "b h w"]) -> Int[Tensor, "n b h w"]:
        """The choice itself, and two maps that each give half of the regions, drawn anew, another granularity."""
        other = (grains + torch.randint_like(grains, 1, self.granularities)) % self.granularities
        half = torch.rand(grains.shape, device=grains.device) < 0.5
        return torch.stack([grains, torch.where(half, other, grains), torch.where(half, grains, other)])

    def teach(
        self,
        features: Sequence[Float[Tensor, "b c _ _"]],
        grains: Int[Tensor, "n b h w"],
        errors: Float[Tensor, "n b h w"],
    ) -> Float[Tensor, ""]:
        """A Huber loss of the gains over the first map, in units of the mean gain: they have heavy tails.

        Where a map gives a region the first map's granularity, its neighbours alone have changed: that teaches nothing.
        """
        changed = grains[1:] != grains[0]
        gains = torch.where(changed, errors[0] - errors[1:], 0)
        total, count = sum_over_processes(torch.stack([gains.abs().sum(), changed.sum()]))
        count = count.clamp_min(1)
        self.mean_gain.lerp_((total / count).clamp_min(LEAST_GAIN), pace(self.steps, self.decay))
        worths = _worths(self._gains(features))
        expected = worths.gather(1, grains[1:].movedim(0, 1)) - worths.gather(1, grains[:1].movedim(0, 1))
        losses = F.huber_loss(expected.movedim(1, 0), gains / self.mean_gain, reduction="none")
        return torch.where(changed, losses, 0).sum() / (count / world()[1])

    def _gains(self, features: Sequence[Float[Tensor, "b c _ _"]]) -> Float[Tensor, "b n h w"]:
        """What each step to the next finer granularity is expected to gain, in units of the mean gain."""
        if features[0].shape[1] != self.channels:
            raise UserError(f"gate.channels is {self.channels}, but the encoder's features have {features[0].shape[1]}")
        coarsest = features[0].shape[2:]
        pooled = []
        for feature in features:
            side = feature.shape[2] // coarsest[0]
            detached = feature.detach().float()
            pooled += [F.avg_pool2d(detached, side), F.avg_pool2d(detached.square(), side).sqrt()]
        # in float32 under autocast too: prices are compared with these
        with torch.autocast(features[0].device.type, enabled=False):
            return self.predict(torch.cat(pooled, dim=1).movedim(1, -1)).movedim(-1, 1)

    def _detail(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n h w"]:
        """What varies within the cells of each granularity but the finest, summed over a region."""
        factors = self._ratios.factors
        images = images.float()
        colours = [F.interpolate(F.avg_pool2d(images, each), scale_factor=each) for each in factors[:-1]]
        return torch.stack([region_errors(each, images, factors[0]) for each in colours], dim=1)

    def _batch_prices(self, worths: Float[Tensor, "b k h w"]) -> Float[Tensor, " steps"]:
        """The prices at which this batch, of all processes, has the ratios; the model's own follow them."""
        rows = rows_of_all(worths.movedim(1, -1).flatten(0, 2))
        found = self._prices(rows, self._shares)
        self.steps += 1
        self.prices.lerp_(found, pace(self.steps, self.decay))
        if not len(self._drawn):
            return found
        # multiples of the golden ratio spread evenly however many there are, alike on all processes
        return self._prices(rows, self._drawn[0].lerp(self._drawn[1], (self.steps * _GOLDEN).frac()))

    def _prices(self, rows: Float[Tensor, "n k"], shares: Float[Tensor, " k"]) -> Float[Tensor, " steps"]:
        """The prices at which these regions have these shares of granularities."""
        prices = list(F.pad(self.prices, (1, 0)))
        # coordinate ascent in the dual: each price in turn is set so that its granularity has its share
        for k in [*range(self.granularities)] * ROUNDS:
            others = torch.stack([rows[:, j] - prices[j] for j in range(self.granularities) if j != k]).amax(dim=0)
            prices[k] = quantile(rows[:, k] - others, 1 - shares[k])
        return torch.stack(prices[1:]) - prices[0]


def _worths(gains: Float[Tensor, "b n h w"]) -> Float[Tensor, "b k h w"]:
    """What each granularity gains over the coarsest, from the gains of the steps."""
    return F.pad(gains.cumsum(dim=1), (0, 0, 0, 0, 1, 0))
