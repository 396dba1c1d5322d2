"""What `vltok evaluate` tells of a tokenizer's codes as a generator meets them, where it is asked to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vltok.codes import Codes
from vltok.evaluation.features import FeatureNetwork
from vltok.evaluation.gathering import Seen
from vltok.evaluation.measurement import ProcessShare
from vltok.evaluation.perturbation import measure_perturbed
from vltok.evaluation.probe import Probe, training_places
from vltok.evaluation.values import Value
from vltok.interfaces import Tokenizer
from vltok.pictures.images import ExportSource


@dataclass(frozen=True)
class GeneratorFigures:
    """Those that are asked for.

    Attributes:
        training: The pictures of the training split, on whose codes a probe is trained; None for no probe.
        perturbed: Whether codes are perturbed.
    """

    training: ExportSource | None
    perturbed: bool

    def pictures(self, measured: int) -> int:
        """How many pictures are read for them, where so many are measured."""
        probed = 0 if self.training is None else len(training_places(self.training.pictures)) + measured
        return probed + measured * self.perturbed

    def measure(
        self,
        tokenizer: Tokenizer,
        encode: Callable[[Float[Tensor, "b 3 H W"]], Codes],
        source: ExportSource,
        share: ProcessShare,
        network: FeatureNetwork | None,
        device: str,
        seed: int,
    ) -> tuple[Seen[dict[str, Value]], dict[str, Any]]:
        """What the figures follow from, and their parts of the protocol.

        Args:
            tokenizer: In evaluation mode, on `device`.
            encode: Gives its codes of images in [-1, 1].
            source: The pictures that are measured.
            share: Which of them this process takes, and how.
            network: Gives the features of the distances of perturbed pictures; on `device`.
            device: Where to compute.
            seed: Sets what is perturbed. The probe has one of its own.

        Raises:
            UserError: There are no training pictures, or the tokenizer's codes have no vectors.
        """
        seen: Seen[dict[str, Value]] = Seen({}, lambda items: {})
        protocol: dict[str, Any] = {}
        if self.perturbed:
            batches = share.batches(source)
            found, protocol["perturbed"] = measure_perturbed(tokenizer, encode, batches, network, device, seed)
            seen = seen.beside("perturbed", found).then(_merged)
        if self.training is not None:
            probe = Probe(encode, tokenizer.spec, device)
            protocol["probe"] = probe.train(self.training, share.batch_size, share.workers, share.report)
            seen = seen.beside("probe", probe.measure(share.batches(source))).then(_merged)
        return seen, protocol


def _merged(figures: tuple[dict[str, Value], dict[str, Value]]) -> dict[str, Value]:
    return figures[0] | figures[1]
