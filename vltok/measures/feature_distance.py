"""How far a picture lies from its reconstruction for a feature network: LPIPS without the learned weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def feature_distance(
    reconstructions: Sequence[Float[Tensor, "b _ _ _"]], images: Sequence[Float[Tensor, "b _ _ _"]]
) -> Float[Tensor, " b"]:
    """The distance of each pair, in [0, 4]; 0 for equal pictures.

    At each place of each stage, the features are brought to length 1 along their channels; the squared distance is
    averaged over places and stages. Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1, with all channels
    counted alike.

    Args:
        reconstructions: The maps `[b c h w]` of at least one stage of their network.
        images: Those of the originals, by the same network.
    """
    stages = [
        (normalize(first) - normalize(second)).square().sum(1).mean(dim=(1, 2))
        for first, second in zip(reconstructions, images, strict=True)
    ]
    return torch.stack(stages).mean(0)
