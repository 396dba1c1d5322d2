"""A gate that gives finer codes where a small prior could not have told them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.codes import Ratios
from vltok.errors import UserError
from vltok.interfaces import Foreseeing, Gate, GateDecision
from vltok.processes import batch_mean, rows_of_all
from vltok.tokenizers.thresholds import pace, quantile


class SurpriseGate(Gate, Foreseeing):
    """Gives a region coarse codes where a small prior is sure of its finest ones.

    ```
    finest features ── of the rows above and the left, within reach ── prior ── distribution over the code of each place
    surprise of a region = mean entropy of its places;   above k thresholds: granularity k
    ```

    After DPAR (Srivastava et al. 2025, https://arxiv.org/abs/2512.21867), which merges codes whose next-token entropy
    under a light autoregressive model is low. There that model is trained before, on the codes of a frozen tokenizer,
    and codes are merged for the generator alone. Here the choice comes before the codes, so that the prior is trained
    along: it foresees the code that each place would have at the finest granularity from the finest features before it
    in raster order, which are what those codes are rounded from. Its gradient does not reach the encoder. It learns
    from the finest codes of all regions, also of those that got coarse ones: repeated codes are easy to foresee, so
    that a region that was coarse once would always be. Nothing is downloaded, and a choice takes one forward pass.

    Entropy is what the prior expects to be surprised by: the code itself is not looked at. The first places of an image
    have nothing before them, and count as surprising.

    The K − 1 thresholds part the regions of each training batch in the shares that the ratios ask for; outside training
    their moving averages, which are stored with the model. So single images get more codes or fewer.

    Args:
        channels: Width of the encoder's feature maps.
        codebook_size: Number of codes, v.
        ratios: Share of regions of each factor over the training images, summing to 1, such as ``{8: 0.5, 16: 0.5}``.
        hidden: Width of the prior.
        reach: How many rows above, and places to the left and the right of these, the prior reads.
        decay: Share of the moving averages of the thresholds that a training step keeps.

    Raises:
        UserError: Ratios that do not sum to 1 or are of less than two factors, or a number out of range.
    """

    thresholds: Tensor
    steps: Tensor
    _before: Tensor
    _coarser: Tensor

    def __init__(
        self,
        channels: int,
        codebook_size: int,
        ratios: dict[int, float],
        hidden: int = 64,
        reach: int = 2,
        decay: float = 0.95,
    ) -> None:
        super().__init__()
        self._ratios = Ratios.of(ratios)
        if len(ratios) < 2:
            raise UserError(f"gate.ratios must name two factors or more, not {ratios}: for one take the gate 'fixed'")
        for name, value in {"channels": channels, "codebook_size": codebook_size, "hidden": hidden}.items():
            if value < 1:
                raise UserError(f"gate.{name} must be at least 1, not {value}")
        if reach < 1:
            raise UserError(f"gate.reach must be at least 1, not {reach}")
        if not 0 < decay < 1:
            raise UserError(f"gate.decay must lie between 0 and 1, not {decay}")
        self.channels = channels
        self.decay = decay
        self._codebook_size = codebook_size
        side = 2 * reach + 1
        self.context = nn.Conv2d(channels, hidden, side, padding=reach)
        self.predict = nn.Sequential(
            nn.SiLU(), nn.Conv2d(hidden, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, codebook_size, 1)
        )
        before = torch.arange(side * side).view(side, side) < side * side // 2
        self.register_buffer("_before", before.float(), persistent=False)
        # for each step to a finer granularity, the share of the regions that do not take it
        self.register_buffer("_coarser", torch.tensor(self._ratios.shares[:-1]).cumsum(0), persistent=False)
        self.register_buffer("thresholds", torch.zeros(self.granularities - 1))
        self.register_buffer("steps", torch.zeros(()))

    @property
    def granularities(self) -> int:
        return len(self._ratios.factors)

    @property
    def ratios(self) -> Ratios:
        return self._ratios

    @property
    def codebook_size(self) -> int:
        return self._codebook_size

    def forward(self, features: Sequence[Float[Tensor, "b c _ _"]], images: Float[Tensor, "b 3 H W"]) -> GateDecision:
        with torch.no_grad():
            surprise = self._surprise(features)
            thresholds = self._batch_thresholds(surprise) if self.training else self.thresholds
            above = surprise[:, None] - thresholds[:, None, None]
        return GateDecision.hard((above > 0).sum(dim=1), self.granularities, step_scores=above)

    def foresee(self, features: Sequence[Float[Tensor, "b c _ _"]], codes: Int[Tensor, "b H W"]) -> Float[Tensor, ""]:
        """The cross-entropy of the finest codes, in nats a code."""
        nats = F.nll_loss(self._log_likelihoods(features), codes, reduction="none")
        return batch_mean(nats.mean(dim=(1, 2)), self.training)

    def _surprise(self, features: Sequence[Float[Tensor, "b c _ _"]]) -> Float[Tensor, "b h w"]:
        """The entropy that the prior has left, in nats a place, mean over each region."""
        logs = self._log_likelihoods(features)
        return F.avg_pool2d(-(logs.exp() * logs).sum(dim=1), features[-1].shape[2] // features[0].shape[2])

    def _log_likelihoods(self, features: Sequence[Float[Tensor, "b c _ _"]]) -> Float[Tensor, "b v H W"]:
        """How likely each code is at each place of the finest granularity."""
        if features[0].shape[1] != self.channels:
            raise UserError(f"gate.channels is {self.channels}, but the encoder's features have {features[0].shape[1]}")
        finest = features[-1].detach().float()
        # in float32 under autocast too: thresholds are compared with what follows
        with torch.autocast(finest.device.type, enabled=False):
            weight = self.context.weight * self._before
            read = F.conv2d(finest, weight, self.context.bias, padding=self.context.padding)
            return self.predict(read).log_softmax(dim=1)

    def _batch_thresholds(self, surprise: Float[Tensor, "b h w"]) -> Float[Tensor, " steps"]:
        """The thresholds at which this batch, of all processes, has the ratios; the model's own follow them."""
        rows = rows_of_all(surprise.flatten())
        found = torch.stack([quantile(rows, share) for share in self._coarser])
        self.steps += 1
        self.thresholds.lerp_(found, pace(self.steps, self.decay))
        return found
