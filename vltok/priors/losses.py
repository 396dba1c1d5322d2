"""The loss of a prior that is trained by nothing but maximum likelihood."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vltok.codes import Codes
from vltok.interfaces import PriorLoss


def nats_per_code(codes: Codes, nats: Mapping[str, Tensor], counts: Mapping[str, int]) -> PriorLoss:
    """The negative log-likelihood of codes, which training minimises in nats a code.

    Args:
        codes: The batch.
        nats: What each kind of token costs in all, by name, each a scalar.
        counts: How many tokens of each kind there are.
    """
    return PriorLoss(
        total=torch.stack(list(nats.values())).sum() / len(codes.ids),
        parts={name: cost.detach() / counts[name] for name, cost in nats.items()},
        counts={name: torch.full((), count, device=codes.device) for name, count in counts.items()},
    )
