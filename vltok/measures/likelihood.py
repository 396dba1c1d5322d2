"""The likelihood of codes under a prior, added up over batches and devices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from lightning.pytorch.strategies import Strategy

from vltok.codes import Codes
from vltok.interfaces import PriorLoss


class Likelihood:
    """Sums of losses, of which every token counts the same however batches and devices share them."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}

    @property
    def sums(self) -> Mapping[str, float]:
        """What was added up so far, as plain numbers, for other processes."""
        return dict(self._sums)

    @classmethod
    def total(cls, parts: Iterable[Mapping[str, float]]) -> Likelihood:
        """That of the `sums` of several."""
        whole = cls()
        for part in parts:
            for name, value in part.items():
                whole._sums[name] = whole._sums.get(name, 0.0) + value
        return whole

    def update(self, loss: PriorLoss, codes: Codes) -> None:
        """Add a batch; the host waits for the device once.

        Args:
            loss: Of the batch. A part without a count is a mean over the codes.
            codes: The batch.
        """
        codes_count = codes.ids.numel()
        counts = [loss.counts.get(name, codes_count) for name in loss.parts]
        values = [loss.total, codes_count if loss.weight is None else loss.weight, *loss.parts.values(), *counts]
        total, weight, *rest = torch.stack(
            [torch.as_tensor(value, dtype=torch.float32, device=loss.total.device) for value in values]
        ).tolist()
        means, counts = rest[: len(counts)], rest[len(counts) :]
        added = {"images": len(codes), "codes": codes_count, "loss": total * weight, "weight": weight}
        for name, mean, count in zip(loss.parts, means, counts, strict=True):
            added |= {f"nats/{name}": mean * count, f"tokens/{name}": count}
        for name, value in added.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def reduce(self, strategy: Strategy) -> None:
        """Add up what all devices have; each must have seen a batch."""
        sums = torch.tensor(list(self._sums.values()), dtype=torch.float64, device=strategy.root_device)
        sums = strategy.reduce(sums, reduce_op="sum")
        self._sums = dict(zip(self._sums, sums.tolist(), strict=True))

    def figures(self) -> Mapping[str, float]:
        """What was measured, by name; nothing where nothing was added.

        Returns:
            `loss`: what training minimises; each part under its own name: nats a token. `bits_per_code` and
            `bits_per_image`: everything that says what an image's codes are, positions and ends too.
            `PART_per_code`: nats of a part for each code, where special tokens cost but do not count.
        """
        sums = self._sums
        if not sums:
            return {}
        parts = [name.partition("/")[2] for name in sums if name.startswith("nats/")]
        bits = sum(sums[f"nats/{part}"] for part in parts) / math.log(2)
        return {
            "loss": sums["loss"] / sums["weight"],
            **{part: sums[f"nats/{part}"] / sums[f"tokens/{part}"] for part in parts},
            "bits_per_code": bits / sums["codes"],
            "bits_per_image": bits / sums["images"],
            **{f"{part}_per_code": sums[f"nats/{part}"] / sums["codes"] for part in parts},
        }
