"""The likelihood of codes under a prior: every token counts the same, however batches and devices share them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import torch

from vltok.codes import Codes
from vltok.interfaces import PriorLoss


def likelihood_sums(loss: PriorLoss, codes: Codes) -> dict[str, float]:
    """What the figures of a batch are quotients of; the sums of several batches add up. The host waits once.

    Args:
        loss: Of the batch. A part without a count is a mean over the codes.
        codes: The batch.
    """
    codes_count = len(codes.ids)
    counts = [loss.counts.get(name, codes_count) for name in loss.parts]
    values = [loss.total, codes_count if loss.weight is None else loss.weight, *loss.parts.values(), *counts]
    total, weight, *rest = torch.stack(
        [torch.as_tensor(value, dtype=torch.float32, device=loss.total.device) for value in values]
    ).tolist()
    means, counts = rest[: len(counts)], rest[len(counts) :]
    sums = {"loss": total * weight, "weight": weight}
    if loss.likelihood:
        sums |= {"images": float(len(codes)), "codes": float(codes_count)}
    for name, mean, count in zip(loss.parts, means, counts, strict=True):
        sums |= {f"nats/{name}": mean * count, f"tokens/{name}": count}
    return sums


def total_sums(batches: Iterable[Mapping[str, float]]) -> Counter[str]:
    """The `likelihood_sums` of several batches together."""
    total: Counter[str] = Counter()
    for sums in batches:
        total.update(sums)  # type: ignore[arg-type]
    return total


def likelihood_figures(sums: Mapping[str, float]) -> dict[str, float]:
    """What was measured, by name, from `likelihood_sums` over all batches and devices; nothing where nothing was added.

    Returns:
        `loss`: what training minimises; each part under its own name: nats a token. Of a likelihood also:
        `bits_per_code` and `bits_per_image`: everything that says what an image's codes are, positions and ends too.
        `PART_per_code`: nats of a part for each code, where special tokens cost but do not count.
    """
    if not sums:
        return {}
    parts = [name.partition("/")[2] for name in sums if name.startswith("nats/")]
    means = {part: sums[f"nats/{part}"] / sums[f"tokens/{part}"] for part in parts}
    if "images" not in sums:
        return {"loss": sums["loss"] / sums["weight"], **means}
    bits = sum(sums[f"nats/{part}"] for part in parts) / math.log(2)
    return {
        "loss": sums["loss"] / sums["weight"],
        **means,
        "bits_per_code": bits / sums["codes"],
        "bits_per_image": bits / sums["images"],
        **{f"{part}_per_code": sums[f"nats/{part}"] / sums["codes"] for part in parts},
    }
