"""How far two sets of images lie apart, by the features of a named network."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from vltok.devices import widest
from vltok.errors import UserError
from vltok.evaluation.features import Features
from vltok.evaluation.gathering import Items
from vltok.evaluation.values import Value

_SUBSETS, _SUBSET_SIZE = 100, 1000
_SPLITS = 10
_NEIGHBOURS = 3
_CHUNK = 1024
_ITEMS = ("real", "other", "logits")


class SetDistances:
    """Distances between a set of real images and one of others, updated batch by batch.

    Features are kept in main memory: those of several processes together, in the order of their ranks, give the
    distances of one process that has seen all images.

    Args:
        device: Where distances are computed; on the host, where the device has no double precision.
        seen: The features that others have seen, batch by batch; see `items`.
    """

    def __init__(self, device: torch.device | str = "cpu", seen: Items | None = None) -> None:
        # sums of squares need double precision
        self._device = torch.device(device if widest(torch.device(device)) == torch.float64 else "cpu")
        self._real, self._other, self._logits = (list[np.ndarray]((seen or {}).get(name, ())) for name in _ITEMS)

    def update(self, features: Features, real: bool) -> None:
        """Add a batch."""
        (self._real if real else self._other).append(features.vectors.cpu().numpy())
        if features.logits is not None and not real:
            self._logits.append(features.logits.cpu().numpy())

    @property
    def items(self) -> dict[str, list[np.ndarray]]:
        """The features of real images and of others, and what the network says of the others' classes."""
        return dict(zip(_ITEMS, (self._real, self._other, self._logits), strict=True))

    def compute(self, seed: int = 0) -> dict[str, Value]:
        """The distances.

        Args:
            seed: Sets the subsets of the kernel distance and the order of the score's splits.

        Returns:
            `frechet`: the Fréchet distance of normal distributions (Heusel et al. 2017), with a note where it is biased
            because there are no more images than features. `kernel`: the squared maximum mean discrepancy with a cubic
            kernel (Bińkowski et al. 2018), mean and deviation over 100 subsets of 1000 images, or of half of them where
            there are fewer than 2000, but of 2 at least.
            `precision`, `recall`: Kynkäänniemi et al. 2019, with 3 neighbours. `score`: the Inception Score (Salimans
            et al. 2016) and its deviation between splits, where the network was trained on classes.

        Raises:
            UserError: A set has fewer than two images.
        """
        fewest = min(sum(map(len, parts)) for parts in (self._real, self._other))
        check_images(fewest)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found = self._between(self._whole(self._real), self._whole(self._other), fewest)
            if self._logits:
                score = InceptionScore(feature=nn.Identity(), splits=_SPLITS, sync_on_compute=False)
                score.update(self._whole(self._logits))
                found["score"] = _spread(*score.compute())
        return found

    def _between(self, real: Float[Tensor, "n d"], other: Float[Tensor, "m d"], fewest: int) -> dict[str, Value]:
        dimension = real.shape[1]
        frechet = FrechetInceptionDistance(feature=_given(dimension), sync_on_compute=False).to(self._device)
        # half of a small set, lest all subsets be the same one; the estimator needs 2
        size = min(_SUBSET_SIZE, max(fewest // 2, 2))
        kernel = KernelInceptionDistance(
            feature=nn.Identity(), subsets=_SUBSETS, subset_size=size, sync_on_compute=False
        ).to(self._device)
        for features, is_real in ((real, True), (other, False)):
            kernel.update(features, real=is_real)
            for part in features.split(_CHUNK):  # which it turns into doubles
                frechet.update(part, real=is_real)
        precision, recall = precision_recall(real, other)
        # a covariance of no more images than features is singular: https://arxiv.org/abs/1911.07023
        note = f"biased: {fewest} images for {dimension} features" if fewest <= dimension else None
        return {
            "frechet": Value(frechet.compute().item(), note=note),
            "kernel": _spread(*kernel.compute()),
            "precision": Value(precision),
            "recall": Value(recall),
        }

    def _whole(self, parts: list[np.ndarray]) -> Float[Tensor, "n d"]:
        return torch.from_numpy(np.concatenate(parts)).to(self._device)


def check_images(fewest: int) -> None:
    """See that there are enough images for distances between sets.

    Raises:
        UserError: There are fewer than two.
    """
    if fewest < 2:
        raise UserError(
            f"a distance between sets of images needs at least 2 of each, not {fewest}: give more pictures (or "
            "--count), or leave --features out"
        )


def precision_recall(
    real: Float[Tensor, "n d"], other: Float[Tensor, "m d"], neighbours: int = _NEIGHBOURS
) -> tuple[float, float]:
    """Improved precision and recall: the share of images inside the other set's support.

    A set's support is the union of balls around its features, each reaching to the k-th nearest of the set.
    Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991, eq. 1 and 2.

    Returns:
        Precision, the share of the other images inside the real ones' support, and recall, the reverse.
    """
    return _covered(real, other, neighbours), _covered(other, real, neighbours)


def _covered(support: Float[Tensor, "n d"], images: Float[Tensor, "m d"], neighbours: int) -> float:
    nearest = min(neighbours + 1, len(support))  # the nearest of all is the image itself
    reach = torch.cat([torch.cdist(part, support).kthvalue(nearest).values for part in support.split(_CHUNK)])
    inside = [(torch.cdist(part, support) <= reach).any(dim=1) for part in images.split(_CHUNK)]
    return torch.cat(inside).float().mean().item()


def _spread(mean: Float[Tensor, ""], deviation: Float[Tensor, ""]) -> Value:
    return Value(mean.item(), deviation=deviation.item())


def _given(dimension: int) -> nn.Identity:
    """Stands where torchmetrics wants a network: the features are computed once, for all metrics."""
    given = nn.Identity()
    given.register_buffer("num_features", torch.tensor(dimension))
    return given
