"""How far two sets of images lie apart, by the features of a named network."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.utilities import dim_zero_cat

from vltok.evaluation.features import Features
from vltok.evaluation.processes import gather
from vltok.evaluation.values import Value

_SUBSETS, _SUBSET_SIZE = 100, 1000
_SPLITS = 10
_NEIGHBOURS = 3
_CHUNK = 1024


class SetDistances:
    """Distances between a set of real images and one of others, updated batch by batch.

    Across processes, torchmetrics adds up what each has seen.

    Args:
        dimension: The number of features.
        device: Where the sums are kept.
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        given = _Given(dimension)
        self._frechet = FrechetInceptionDistance(feature=given).to(device)
        self._kernel = KernelInceptionDistance(feature=given, subsets=_SUBSETS).to(device)
        self._score = InceptionScore(feature=given, splits=_SPLITS).to(device)
        self._support = PrecisionRecall(_NEIGHBOURS).to(device)
        self._has_logits = False

    def update(self, features: Features, real: bool) -> None:
        """Add a batch."""
        for metric in (self._frechet, self._kernel, self._support):
            metric.update(features.vectors, real=real)
        if features.logits is not None and not real:
            self._score.update(features.logits)
            self._has_logits = True

    def compute(self, seed: int = 0) -> dict[str, Value]:
        """The distances.

        Args:
            seed: Sets the subsets of the kernel distance and the order of the score's splits.

        Returns:
            `frechet`: the Fréchet distance of normal distributions (Heusel et al. 2017). `kernel`: the squared maximum
            mean discrepancy with a cubic kernel (Bińkowski et al. 2018), mean and deviation over 100 subsets of 1000
            images, or of half of them where there are fewer than 2000.
            `precision`, `recall`: Kynkäänniemi et al. 2019, with 3 neighbours. `score`: the Inception Score (Salimans
            et al. 2016) and its deviation between splits, where the network was trained on classes.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            precision, recall = (value.item() for value in self._support.compute())
            counts = (self._frechet.real_features_num_samples, self._frechet.fake_features_num_samples)
            images = min(sum(gather([int(count)])) for count in counts)
            # half of a small set, lest all subsets be the same one
            self._kernel.subset_size = min(_SUBSET_SIZE, max(images // 2, 1))
            kernel, kernel_deviation = (value.item() for value in self._kernel.compute())
            found = {
                "frechet": Value(self._frechet.compute().item()),
                "kernel": Value(kernel, deviation=kernel_deviation),
                "precision": Value(precision),
                "recall": Value(recall),
            }
            if self._has_logits:
                score, score_deviation = (value.item() for value in self._score.compute())
                found["score"] = Value(score, deviation=score_deviation)
        return found


class PrecisionRecall(Metric):
    """Improved precision and recall: the share of images inside the other set's support.

    A set's support is the union of balls around its features, each reaching to the k-th nearest of the set.
    Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991, eq. 1 and 2.

    Args:
        neighbours: k.
    """

    full_state_update = False

    def __init__(self, neighbours: int = _NEIGHBOURS) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.add_state("real", [], dist_reduce_fx=None)
        self.add_state("other", [], dist_reduce_fx=None)

    def update(self, vectors: Float[Tensor, "b d"], real: bool) -> None:
        """Add a batch of features."""
        (self.real if real else self.other).append(vectors)

    def compute(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Precision, the share of the other images inside the real ones' support, and recall, the reverse."""
        real, other = dim_zero_cat(self.real), dim_zero_cat(self.other)
        return self._covered(real, other), self._covered(other, real)

    def _covered(self, support: Float[Tensor, "n d"], images: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        nearest = min(self.neighbours + 1, len(support))  # the nearest of all is the image itself
        reach = torch.cat([torch.cdist(part, support).kthvalue(nearest).values for part in support.split(_CHUNK)])
        inside = [(torch.cdist(part, support) <= reach).any(dim=1) for part in images.split(_CHUNK)]
        return torch.cat(inside).float().mean()


class _Given(nn.Module):
    """Stands where torchmetrics wants a network: the features are computed once, for all metrics."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return features
