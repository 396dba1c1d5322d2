"""What the figures of an evaluation follow from, so that no part of it measures something else than the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from vltok.drawing.config import SamplingConfig
from vltok.io.bundles import fingerprint, prior_fingerprint
from vltok.pictures.images import ExportSource
from vltok.rates import Rate
from vltok.verbs.inputs import digest_of, weights_fingerprint


def asked_of(given: Mapping[str, Any], source: ExportSource, batch_size: int) -> dict[str, Any]:
    """What figures follow from, by the names of options: two parts of one evaluation have it alike.

    Args:
        given: The arguments of `vltok.evaluate`, by name.
        source: The pictures.
        batch_size: How many are computed together.

    Raises:
        UserError: A bundle cannot be read.
    """
    own = ("codec", "quality", "split", "features", "lpips", "probe_prior", "perturb_codes", "count", "seed")
    sampling = {**asdict(SamplingConfig()), **({} if given["sampling"] is None else asdict(given["sampling"]))}
    options = {
        **{name: _weights(given[name], fingerprint) for name in ("tokenizer", "fixed")},
        "prior": _weights(given["prior"], prior_fingerprint),
        **{name: given[name] for name in (*own, "examples", "compile")},
        **{f"sampling.{name}": value for name, value in sampling.items()},
        "rate": None if given["rate"] is None else str(Rate.of(given["rate"])),
        "batch_size": batch_size,
    }
    return {
        **{f"--{name.replace('_', '-')}": value for name, value in options.items()},
        "pictures": source.pictures,
        "the pictures' names and crops": digest_of([source.described, *source.keys()])[:12],
    }


def _weights(given: Any, of_bundle: Callable[[str | os.PathLike], str]) -> str | None:
    """What tells weights from others."""
    if given is None:
        return None
    return (weights_fingerprint(given) if isinstance(given, nn.Module) else of_bundle(given))[:12]
